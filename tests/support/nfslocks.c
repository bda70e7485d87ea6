/* flock(2) as NFS has it: a byte-range lock, which wants a file that is open for writing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

int flock(int descriptor, int how)
{
    static int (*real)(int, int);

    if (!real)
        real = (int (*)(int, int))dlsym(RTLD_NEXT, "flock");
    if ((how & LOCK_EX) && (fcntl(descriptor, F_GETFL) & O_ACCMODE) == O_RDONLY) {
        errno = EBADF;
        return -1;
    }
    return real(descriptor, how);
}
