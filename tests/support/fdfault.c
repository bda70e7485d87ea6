#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>
/* Fails calls that make a descriptor, or a process, as a limit would. The file $FDFAULT (a shared mapping) has five int64:
   the number of the call to fail, counted from now (0: none), whether all later calls fail as well, the errno, how many calls
   there were, and which kinds count (the bits below). The caller resets the count. */
static struct { volatile int64_t at, lasts, error, calls, kinds; } *shared;
enum { OPEN = 1, PIPE = 2, SOCKET = 4, ACCEPT = 8, EVENT = 16, PIDFD = 32, MEMFD = 64, INOTIFY = 128, DUP = 256, FOLDER = 512,
       PROCESS = 1024, ADD = 2048 };
__attribute__((constructor)) static void init(void) {
    const char *p = getenv("FDFAULT");
    int fd = p ? syscall(SYS_openat, AT_FDCWD, p, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd >= 0) {
        void *m = mmap(0, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0); close(fd);
        if (m != MAP_FAILED) shared = m;
    }
}
static int fails(int kind) {
    if (!shared || !shared->kinds || !(shared->kinds & kind)) return 0;
    int64_t n = __sync_add_and_fetch(&shared->calls, 1), at = shared->at;
    if (!at || n < at || (n > at && !shared->lasts)) return 0;
    errno = (int)shared->error;
    return 1;
}
#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define MODE mode_t mode = 0; if (flags & (O_CREAT | __O_TMPFILE)) { va_list v; va_start(v, flags); mode = va_arg(v, mode_t); va_end(v); }
int open(const char *path, int flags, ...) { MODE REAL(open); return fails(OPEN) ? -1 : real(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE REAL(open64); return fails(OPEN) ? -1 : real(path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE REAL(openat); return fails(OPEN) ? -1 : real(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE REAL(openat64); return fails(OPEN) ? -1 : real(at, path, flags, mode); }
FILE *fopen(const char *path, const char *mode) { REAL(fopen); return fails(OPEN) ? NULL : real(path, mode); }
FILE *fopen64(const char *path, const char *mode) { REAL(fopen64); return fails(OPEN) ? NULL : real(path, mode); }
int mkstemp(char *name) { REAL(mkstemp); return fails(OPEN) ? -1 : real(name); }
int mkstemp64(char *name) { REAL(mkstemp64); return fails(OPEN) ? -1 : real(name); }
DIR *opendir(const char *path) { REAL(opendir); return fails(FOLDER) ? NULL : real(path); }
int pipe(int *ends) { REAL(pipe); return fails(PIPE) ? -1 : real(ends); }
int pipe2(int *ends, int flags) { REAL(pipe2); return fails(PIPE) ? -1 : real(ends, flags); }
int socket(int a, int b, int c) { REAL(socket); return fails(SOCKET) ? -1 : real(a, b, c); }
int socketpair(int a, int b, int c, int *d) { REAL(socketpair); return fails(SOCKET) ? -1 : real(a, b, c, d); }
int accept(int fd, struct sockaddr *a, socklen_t *l) { REAL(accept); return fails(ACCEPT) ? -1 : real(fd, a, l); }
int accept4(int fd, struct sockaddr *a, socklen_t *l, int f) { REAL(accept4); return fails(ACCEPT) ? -1 : real(fd, a, l, f); }
int dup(int fd) { REAL(dup); return fails(DUP) ? -1 : real(fd); }
int fcntl64(int fd, int command, ...) {
    va_list v; va_start(v, command); void *a = va_arg(v, void *); va_end(v);
    static int (*real)(int, int, ...); if (!real) real = dlsym(RTLD_NEXT, "fcntl64");
    return (command == F_DUPFD || command == F_DUPFD_CLOEXEC) && fails(DUP) ? -1 : real(fd, command, a);
}
#define ONE(name, kind, type, argument) \
    int name(type argument) { static int (*real)(type); if (!real) real = dlsym(RTLD_NEXT, #name); return fails(kind) ? -1 : real(argument); }
ONE(epoll_create, EVENT, int, size)
ONE(epoll_create1, EVENT, int, flags)
ONE(inotify_init1, INOTIFY, int, flags)
int inotify_add_watch(int fd, const char *path, uint32_t mask) {
    static int (*real)(int, const char *, uint32_t); if (!real) real = dlsym(RTLD_NEXT, "inotify_add_watch");
    return fails(ADD) ? -1 : real(fd, path, mask);
}
int epoll_ctl(int fd, int op, int other, void *event) {
    static int (*real)(int, int, int, void *); if (!real) real = dlsym(RTLD_NEXT, "epoll_ctl");
    return op == 1 && fails(ADD) ? -1 : real(fd, op, other, event);
}
int eventfd(unsigned count, int flags) {
    static int (*real)(unsigned, int); if (!real) real = dlsym(RTLD_NEXT, "eventfd");
    return fails(EVENT) ? -1 : real(count, flags);
}
int memfd_create(const char *name, unsigned flags) { REAL(memfd_create); return fails(MEMFD) ? -1 : real(name, flags); }
int pidfd_open(pid_t pid, unsigned flags) { return fails(PIDFD) ? -1 : (int)syscall(SYS_pidfd_open, pid, flags); }
long syscall(long n, ...) {
    va_list v; va_start(v, n); long a[6]; for (int i = 0; i < 6; i++) a[i] = va_arg(v, long); va_end(v);
    static long (*real)(long, ...); if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return n == SYS_pidfd_open && fails(PIDFD) ? -1 : real(n, a[0], a[1], a[2], a[3], a[4], a[5]);
}
pid_t fork(void) { REAL(fork); return fails(PROCESS) ? -1 : real(); }
int posix_spawn(pid_t *pid, const char *path, const void *actions, const void *attributes, char *const *argv, char *const *envp) {
    static int (*real)(pid_t *, const char *, const void *, const void *, char *const *, char *const *);
    if (!real) real = dlsym(RTLD_NEXT, "posix_spawn");
    return fails(PROCESS) ? (int)shared->error : real(pid, path, actions, attributes, argv, envp);
}
