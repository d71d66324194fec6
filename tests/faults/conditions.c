/* Conditions of the host that a test sets while the daemon runs, by LD_PRELOAD: another wall clock, and I/O errors
   below a directory. $H2K_CONDITIONS names a file with `struct conditions`, which the test changes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct conditions {
    int64_t offset;      /* seconds that the wall clock is ahead */
    int32_t error;       /* errno of calls that read or write below `prefix`; 0: none */
    int32_t only_writes; /* reading works */
    char prefix[512];
};
static volatile struct conditions *now;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("H2K_CONDITIONS");
    int file = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *at = mmap(0, sizeof *now, PROT_READ, MAP_SHARED, file, 0);
    syscall(SYS_close, file);
    now = at == MAP_FAILED ? 0 : at;
}

static int below(const char *path) {
    return path && !strncmp(path, (const char *)now->prefix, strlen((const char *)now->prefix));
}

static const char *named(int handle, char *room, size_t size) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, room, size - 1);
    if (length < 0)
        return 0;
    room[length] = 0;
    return room;
}

static int failing_path(int directory, const char *path, int writes) {
    char room[1024], whole[2048];
    if (!now || !now->error || (now->only_writes && !writes) || !path)
        return 0;
    if (path[0] != '/' && directory != AT_FDCWD) {
        const char *start = named(directory, room, sizeof room);
        snprintf(whole, sizeof whole, "%s/%s", start ? start : "", path);
        path = whole;
    }
    if (!below(path))
        return 0;
    errno = now->error;
    return 1;
}

static int failing_handle(int handle, int writes) {
    char room[1024];
    if (!now || !now->error || (now->only_writes && !writes) || !below(named(handle, room, sizeof room)))
        return 0;
    errno = now->error;
    return 1;
}

#define REAL(type, name, parameters) \
    static type(*real) parameters;   \
    if (!real)                       \
        real = dlsym(RTLD_NEXT, name)
#define BY_PATH(type, name, parameters, arguments, directory, path, writes) \
    type name parameters {                                                  \
        REAL(type, #name, parameters);                                      \
        return failing_path(directory, path, writes) ? -1 : real arguments; \
    }
#define BY_HANDLE(type, name, parameters, arguments, writes) \
    type name parameters {                                   \
        REAL(type, #name, parameters);                       \
        return failing_handle(handle, writes) ? -1 : real arguments; \
    }
#define OPENS(name)                                                           \
    int name(const char *path, int flags, ...) {                              \
        REAL(int, #name, (const char *, int, ...));                           \
        va_list rest;                                                         \
        va_start(rest, flags);                                                \
        int mode = va_arg(rest, int);                                         \
        va_end(rest);                                                         \
        int writes = flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC);         \
        return failing_path(AT_FDCWD, path, writes) ? -1 : real(path, flags, mode); \
    }
#define OPENS_AT(name)                                                        \
    int name(int directory, const char *path, int flags, ...) {               \
        REAL(int, #name, (int, const char *, int, ...));                      \
        va_list rest;                                                         \
        va_start(rest, flags);                                                \
        int mode = va_arg(rest, int);                                         \
        va_end(rest);                                                         \
        int writes = flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC);         \
        return failing_path(directory, path, writes) ? -1 : real(directory, path, flags, mode); \
    }

OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)
BY_PATH(int, mkdir, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path, 1)
BY_PATH(int, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode), at, path, 1)
BY_PATH(int, rmdir, (const char *path), (path), AT_FDCWD, path, 1)
BY_PATH(int, unlink, (const char *path), (path), AT_FDCWD, path, 1)
BY_PATH(int, unlinkat, (int at, const char *path, int flags), (at, path, flags), at, path, 1)
BY_PATH(int, rename, (const char *from, const char *path), (from, path), AT_FDCWD, path, 1)
BY_PATH(int, renameat, (int a, const char *from, int at, const char *path), (a, from, at, path), at, path, 1)
BY_PATH(int, link, (const char *from, const char *path), (from, path), AT_FDCWD, path, 1)
BY_PATH(int, linkat, (int a, const char *from, int at, const char *path, int f), (a, from, at, path, f), at, path, 1)
BY_HANDLE(ssize_t, read, (int handle, void *to, size_t size), (handle, to, size), 0)
BY_HANDLE(ssize_t, pread, (int handle, void *to, size_t size, off_t at), (handle, to, size, at), 0)
BY_HANDLE(ssize_t, pread64, (int handle, void *to, size_t size, off64_t at), (handle, to, size, at), 0)
BY_HANDLE(ssize_t, write, (int handle, const void *from, size_t size), (handle, from, size), 1)
BY_HANDLE(ssize_t, pwrite, (int handle, const void *from, size_t size, off_t at), (handle, from, size, at), 1)
BY_HANDLE(ssize_t, pwrite64, (int handle, const void *from, size_t size, off64_t at), (handle, from, size, at), 1)
BY_HANDLE(int, fsync, (int handle), (handle), 1)
BY_HANDLE(int, fdatasync, (int handle), (handle), 1)
BY_HANDLE(int, ftruncate, (int handle, off_t size), (handle, size), 1)
BY_HANDLE(int, ftruncate64, (int handle, off64_t size), (handle, size), 1)
BY_HANDLE(int, fchmod, (int handle, mode_t mode), (handle, mode), 1)

int clock_gettime(clockid_t clock, struct timespec *at) {
    REAL(int, "clock_gettime", (clockid_t, struct timespec *));
    int result = real(clock, at);
    if (now && !result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        at->tv_sec += now->offset;
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    REAL(int, "gettimeofday", (struct timeval *, void *));
    int result = real(at, zone);
    if (now && !result)
        at->tv_sec += now->offset;
    return result;
}

time_t time(time_t *to) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (to)
        *to = at.tv_sec;
    return at.tv_sec;
}
