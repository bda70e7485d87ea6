/* The bare limit of this machine: 4 threads start /bin/true and wait for it, without any bookkeeping.
 *
 * Usage: spawn_limit CHILDREN. Prints one number a line: for each child the milliseconds from the common start to the
 * moment just before its posix_spawn, then, on a line of their own, the seconds until the last child was reaped, the CPU
 * seconds of this process, and those of its children.
 */
#define _GNU_SOURCE
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

static void *work(void *unused)
{
    char *argv[] = {"/bin/true", NULL}, *env[] = {NULL};
    long mine;
    (void)unused;
    while ((mine = atomic_fetch_add(&next_child, 1)) < children) {
        pid_t pid;
        int status, error;
        started[mine] = now() - origin;
        error = posix_spawn(&pid, argv[0], NULL, NULL, argv, env);
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
