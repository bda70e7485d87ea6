/* mark BOOK SHIFT MILLISECONDS RULE: a job that keeps a book of its own. It appends
 *
 *   S job run scheduled_at attempt origin token pid boottime wall        at its start, and
 *   E job run code boottime                                              at its end,
 *
 * each in one write. `wall` is the daemon's clock: CLOCK_REALTIME and the int64 in the file SHIFT, which wallshift.c reads,
 * too. RULE is `ok`, or `flaky`: then some occurrences fail at their first attempt, and some at their second.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *of(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : "-";
}

static long long now(clockid_t clock)
{
    struct timespec at;
    clock_gettime(clock, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void note(const char *book, const char *line, int length)
{
    int file = open(book, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || write(file, line, length) != length)
        _exit(99);
    close(file);
}

int main(int count, char **words)
{
    char line[512];
    int64_t shift = 0;
    unsigned hash = 2166136261u;
    int code = 0;
    const char *job = of("SCHEDULERD_JOB_ID"), *run = of("SCHEDULERD_RUN_ID"), *at = of("SCHEDULERD_SCHEDULED_AT");
    if (count != 5)
        return 98;
    int file = open(words[2], O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (read(file, &shift, sizeof shift) != sizeof shift)
            shift = 0;
        close(file);
    }
    note(words[1], line, snprintf(line, sizeof line, "S %s %s %s %s %s %s %d %lld %lld\n", job, run, at,
        of("SCHEDULERD_ATTEMPT"), of("SCHEDULERD_ORIGIN"), of("SCHEDULERD_FENCING_TOKEN"), getpid(), now(CLOCK_BOOTTIME),
        now(CLOCK_REALTIME) + shift));
    if (atoi(words[3]) > 0)
        usleep(atoi(words[3]) * 1000);
    for (const char *each = at; *each; each++)
        hash = (hash ^ (unsigned char)*each) * 16777619u;
    if (!strcmp(words[4], "flaky") && (hash >> 8) % 4 >= (unsigned)atoi(of("SCHEDULERD_ATTEMPT")))
        code = 1;
    note(words[1], line, snprintf(line, sizeof line, "E %s %s %d %lld\n", job, run, code, now(CLOCK_BOOTTIME)));
    return code;
}
