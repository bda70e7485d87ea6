/* The bare limit of this machine: 4 threads start /bin/true and wait for it, without any bookkeeping.
 *
 * Usage: spawn_limit CHILDREN [FOLDER]. With a folder each child does what a run of schedulerd does before its program: it
 * leads a session of its own, and its output is a new file there. Prints one number a line: for each child the milliseconds from the common start to the
 * moment just before its posix_spawn, then, on a line of their own, the seconds until the last child was reaped, the CPU
 * seconds of this process, and those of its children.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#define THREADS 4

static atomic_long next_child;
static long children;
static double *started;
static double origin;
static const char *folder;

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static double cpu_seconds(int who)
{
    struct rusage used;
    getrusage(who, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static int spawn(pid_t *pid, long number, char **argv, char **env)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    char path[4096];
    int error;
    if (folder == NULL)
        return posix_spawn(pid, argv[0], NULL, NULL, argv, env);
    snprintf(path, sizeof path, "%s/%ld.log", folder, number);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    error = posix_spawn(pid, argv[0], &actions, &attributes, argv, env);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return error;
}

static void *work(void *unused)
{
    char *argv[] = {"/bin/true", NULL}, *env[] = {NULL};
    long mine;
    (void)unused;
    while ((mine = atomic_fetch_add(&next_child, 1)) < children) {
        pid_t pid;
        int status, error;
        started[mine] = now() - origin;
        error = spawn(&pid, mine, argv, env);
        if (error != 0) {
            fprintf(stderr, "posix_spawn: %s\n", strerror(error));
            exit(1);
        }
        waitpid(pid, &status, 0);
    }
    return NULL;
}

int main(int count, char **words)
{
    pthread_t threads[THREADS];
    double end;
    children = count > 1 ? atol(words[1]) : 1000;
    folder = count > 2 ? words[2] : NULL;
    started = calloc(children, sizeof *started);
    if (started == NULL)
        return 1;
    origin = now();
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, NULL) != 0)
            return 1;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    end = now();
    for (long i = 0; i < children; i++)
        printf("%.6f\n", started[i] * 1000);
    printf("%.6f %.6f %.6f\n", end - origin, cpu_seconds(RUSAGE_SELF), cpu_seconds(RUSAGE_CHILDREN));
    return 0;
}
