/* Fails calls on files, as a broken disk would: in what is preloaded with it, from one moment to the next.
 *
 * The file $IOFAULT begins with one byte, 0 while nothing fails, and the rules follow as text that ends with a 0 byte: a line
 * is CALLS ERRNO TEXT, and says that these calls fail with this error on files whose path contains TEXT. CALLS is one or
 * more of open, read, write, sync, folder (fsync of a folder), rename and allocate, with commas between. Its last 8 bytes
 * count the calls that failed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define SIZE 4096
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static volatile char *shared;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("IOFAULT");
    int fd = path ? REAL(open)(path, O_RDWR | O_CLOEXEC) : -1;
    void *found = fd < 0 ? MAP_FAILED : mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (found != MAP_FAILED)
        shared = found;
    if (fd >= 0)
        close(fd);
}

static int is_one_of(const char *call, const char *calls)
{
    size_t length = strlen(call);
    const char *at = calls;

    while ((at = strstr(at, call))) {
        if ((at == calls || at[-1] == ',') && (at[length] == ',' || !at[length]))
            return 1;
        at += length;
    }
    return 0;
}

static int fails(const char *call, const char *path)
{
    char rules[SIZE], calls[64], text[256];
    const char *line = rules;
    int number, length;

    if (!shared || !shared[0] || !path)
        return 0;
    memcpy(rules, (const char *)shared + 1, SIZE - 1);
    rules[SIZE - 1] = 0;
    while (sscanf(line, "%63s %d %255s%n", calls, &number, text, &length) == 3) {
        if (is_one_of(call, calls) && strstr(path, text)) {
            __sync_fetch_and_add((volatile long *)(shared + SIZE - sizeof(long)), 1);
            errno = number;
            return 1;
        }
        line += length;
    }
    return 0;
}

static int fails_at(const char *call, int fd)
{
    char link[64], path[4096];
    ssize_t length;
    int before = errno, is_to_fail;

    if (!shared || !shared[0])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length >= 0)
        path[length] = 0;
    is_to_fail = length >= 0 && fails(call, path);
    if (!is_to_fail)
        errno = before;
    return is_to_fail;
}

static const char *sync_of(int fd)
{
    struct stat found;

    return fstat(fd, &found) == 0 && S_ISDIR(found.st_mode) ? "folder" : "sync";
}

#define MODE(mode, flags, last) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, last); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open(const char *path, int flags, ...)
{
    MODE(mode, flags, flags)
    return fails("open", path) ? -1 : REAL(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE(mode, flags, flags)
    return fails("open", path) ? -1 : REAL(open64)(path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    MODE(mode, flags, flags)
    return fails("open", path) ? -1 : REAL(openat)(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...)
{
    MODE(mode, flags, flags)
    return fails("open", path) ? -1 : REAL(openat64)(folder, path, flags, mode);
}

ssize_t read(int fd, void *data, size_t size)
{
    return fails_at("read", fd) ? -1 : REAL(read)(fd, data, size);
}

ssize_t pread(int fd, void *data, size_t size, off_t place)
{
    return fails_at("read", fd) ? -1 : REAL(pread)(fd, data, size, place);
}

ssize_t pread64(int fd, void *data, size_t size, off64_t place)
{
    return fails_at("read", fd) ? -1 : REAL(pread64)(fd, data, size, place);
}

ssize_t write(int fd, const void *data, size_t size)
{
    return fails_at("write", fd) ? -1 : REAL(write)(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    return fails_at("write", fd) ? -1 : REAL(writev)(fd, parts, count);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t place)
{
    return fails_at("write", fd) ? -1 : REAL(pwrite)(fd, data, size, place);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t place)
{
    return fails_at("write", fd) ? -1 : REAL(pwrite64)(fd, data, size, place);
}

int fsync(int fd)
{
    return fails_at(sync_of(fd), fd) ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    return fails_at(sync_of(fd), fd) ? -1 : REAL(fdatasync)(fd);
}

int rename(const char *from, const char *to)
{
    return fails("rename", to) ? -1 : REAL(rename)(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    return fails("rename", to) ? -1 : REAL(renameat)(from_folder, from, to_folder, to);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned int flags)
{
    return fails("rename", to) ? -1 : REAL(renameat2)(from_folder, from, to_folder, to, flags);
}

int posix_fallocate(int fd, off_t place, off_t size)
{
    return fails_at("allocate", fd) ? errno : REAL(posix_fallocate)(fd, place, size);
}

int posix_fallocate64(int fd, off64_t place, off64_t size)
{
    return fails_at("allocate", fd) ? errno : REAL(posix_fallocate64)(fd, place, size);
}
