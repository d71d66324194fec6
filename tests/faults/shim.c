/* Faults at exact calls of libc, for every process of a box: /etc/ld.so.preload names this library.

   FOLDER/points has one point a line: ID ROLE CALL NUMBER ACTION PATTERN. A process takes the first point of its role
   that no other one has taken, and meets it at its NUMBERth such call with a path that matches. With FOLDER/record, calls are written to
   FOLDER/calls instead. Actions: `before` and `after` (SIGKILL before or after the call), `torn` (half of a write, then
   SIGKILL), an errno (the call fails with it, once), or an errno and `+` (and so does each later call of this kind for
   LASTS_MS). FOLDER/ID.met says that the point was met, and where. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FOLDER "/run/h2k-faults/"
#define LASTS_MS 1500
#define TRIES 3

static char role[16], call[16], action[16], id[64], pattern[512];
static long number;
static int armed, recording;
static pid_t owner;
static long count, since;

/* libc's own functions are replaced below: what this library does itself is not to be counted. */
static int raw_open(const char *path, int flags) { return syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0666); }

static ssize_t read_all(const char *path, char *buffer, size_t size) {
    int file = raw_open(path, O_RDONLY);
    if (file < 0) return -1;
    ssize_t length = 0, more;
    while (length < (ssize_t)size - 1 && (more = syscall(SYS_read, file, buffer + length, size - 1 - length)) > 0) length += more;
    syscall(SYS_close, file);
    buffer[length] = 0;
    return length;
}

static int mark(const char *what, const char *text, int flags) {
    char path[256];
    snprintf(path, sizeof path, FOLDER "%s%s", id, what);
    int file = raw_open(path, O_WRONLY | O_CREAT | flags);
    if (file < 0) return 0;
    syscall(SYS_write, file, text, strlen(text));
    syscall(SYS_close, file);
    return 1;
}

/* The roles of tests/faults/house.py, by command line; "" for other programs. */
static void find_role(void) {
    static char command[16384];
    ssize_t length = read_all("/proc/self/cmdline", command, sizeof command);
    if (length <= 0) return;
    const char *slash = strrchr(command, '/'), *program = slash ? slash + 1 : command;
    int python = !strncmp(program, "python", 6);
    if (!strcmp(program, "qemu-img") || !strcmp(program, "nbdfuse")) snprintf(role, sizeof role, "%.15s", program);
    if (!strcmp(program, "qemu-storage-daemon")) snprintf(role, sizeof role, "exporter");
    for (ssize_t at = 0; at < length; at++) if (!command[at]) command[at] = ' ';
    if (!python || strstr(command, "confine.py")) return;
    if (strstr(command, "hyper2kvmd.worker")) snprintf(role, sizeof role, "worker");
    else if (strstr(command, "/bin/hyper2kvmd")) snprintf(role, sizeof role, "daemon");
    else if (strstr(command, "/usr/libexec/hyper2kvm/helper")) snprintf(role, sizeof role, "helper");
}

__attribute__((constructor)) static void begin(void) {
    static char points[65536];
    int kept = errno;
    owner = getpid();
    find_role();
    if (role[0] && syscall(SYS_access, FOLDER "record", F_OK) == 0) recording = 1;
    else if (role[0] && read_all(FOLDER "points", points, sizeof points) > 0) {
        char *rest = points, *line, own[16];
        while (!armed && (line = strsep(&rest, "\n")))
            if (sscanf(line, "%63s %15s %15s %ld %15s %511s", id, own, call, &number, action, pattern) == 6 && !strcmp(own, role))
                armed = mark(".taken", "", O_EXCL);
    }
    errno = kept;
}

/* A process that ends without its call gives the point back, for others that may make it: TRIES of them. */
__attribute__((destructor)) static void give_back(void) {
    char path[256];
    struct stat tries;
    if (!armed || getpid() != owner || count >= number || !mark(".tries", "x", O_APPEND)) return;
    snprintf(path, sizeof path, FOLDER "%s.tries", id);
    if (stat(path, &tries) || tries.st_size >= TRIES) return;
    snprintf(path, sizeof path, FOLDER "%s.taken", id);
    syscall(SYS_unlink, path);
}

static __thread char place[4096];

/* The path of an open file; "" for the standard streams. */
static const char *path_of(int file) {
    char link[64];
    snprintf(link, sizeof link, file == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", file);
    ssize_t length = file >= 0 && file < 3 ? 0 : syscall(SYS_readlink, link, place, sizeof place - 1);
    place[length < 0 ? 0 : length] = 0;
    return place;
}

static const char *path_in(int folder, const char *name) {
    if (name[0] == '/') return name;
    path_of(folder);
    size_t length = strlen(place);
    snprintf(place + length, sizeof place - length, "/%s", name);
    return place;
}

static void record(const char *name, const char *path) {
    char line[1024];
    int length = snprintf(line, sizeof line, "%s %d %s %s\n", role, owner, name, path), file = raw_open(FOLDER "calls", O_WRONLY | O_APPEND);
    if (file < 0) return;
    syscall(SYS_write, file, line, length);
    syscall(SYS_close, file);
}

static long clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether this call meets the point. Pipes and sockets are not counted: their traffic has no fixed order. */
static int meets(const char *name, const char *path) {
    int kept = errno, met = 0;
    if ((armed || recording) && getpid() == owner && path && path[0] == '/' && strncmp(path, "/dev/", 5) && strncmp(path, "/proc/", 6)) {
        if (recording) record(name, path);
        else if (!strcmp(name, call) && !fnmatch(pattern, path, 0)) {
            long now = __sync_add_and_fetch(&count, 1);
            if (now == number) {
                since = clock_ms();
                mark(".met", path, 0);
            }
            met = now == number || (now > number && strchr(action, '+') && clock_ms() - since < LASTS_MS);
        }
    }
    errno = kept;
    return met;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Whether the call has to fail. */
static int fails(int met) {
    if (!met) return 0;
    if (!strcmp(action, "before")) die();
    if (action[0] < '0' || action[0] > '9') return 0;
    errno = atoi(action);
    return 1;
}

static void ends(int met) { if (met && (!strcmp(action, "after") || !strcmp(action, "torn"))) die(); }

#define REPLACE(type, name, function, parameters, arguments, path) \
    type function parameters { \
        static type (*real) parameters; \
        if (!real) real = dlsym(RTLD_NEXT, #function); \
        int met = meets(name, path); \
        if (fails(met)) return -1; \
        type result = real arguments; \
        ends(met); \
        return result; \
    }
#define FILE_PATH (armed || recording ? path_of(file) : 0)
#define AT(folder, name) (armed || recording ? path_in(folder, name) : 0)

REPLACE(int, "fsync", fsync, (int file), (file), FILE_PATH)
REPLACE(int, "fsync", fdatasync, (int file), (file), FILE_PATH)
REPLACE(int, "rename", rename, (const char *from, const char *to), (from, to), AT(AT_FDCWD, to))
REPLACE(int, "rename", renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), AT(b, to))
REPLACE(int, "rename", renameat2, (int a, const char *from, int b, const char *to, unsigned flags), (a, from, b, to, flags), AT(b, to))
REPLACE(int, "link", link, (const char *from, const char *to), (from, to), AT(AT_FDCWD, to))
REPLACE(int, "link", linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags), AT(b, to))
REPLACE(int, "unlink", unlink, (const char *path), (path), AT(AT_FDCWD, path))
REPLACE(int, "unlink", unlinkat, (int folder, const char *path, int flags), (folder, path, flags), AT(folder, path))
REPLACE(int, "unlink", rmdir, (const char *path), (path), AT(AT_FDCWD, path))
REPLACE(int, "mkdir", mkdir, (const char *path, mode_t mode), (path, mode), AT(AT_FDCWD, path))
REPLACE(int, "mkdir", mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode), AT(folder, path))
REPLACE(int, "truncate", ftruncate, (int file, off_t length), (file, length), FILE_PATH)
REPLACE(int, "truncate", ftruncate64, (int file, off64_t length), (file, length), FILE_PATH)
#define HALF (met && !strcmp(action, "torn") ? (size + 1) / 2 : size)
REPLACE(ssize_t, "write", write, (int file, const void *from, size_t size), (file, from, HALF), FILE_PATH)
REPLACE(ssize_t, "write", pwrite, (int file, const void *from, size_t size, off_t at), (file, from, HALF, at), FILE_PATH)
REPLACE(ssize_t, "write", pwrite64, (int file, const void *from, size_t size, off64_t at), (file, from, HALF, at), FILE_PATH)
REPLACE(ssize_t, "write", pwritev, (int file, const struct iovec *from, int parts, off_t at), (file, from, parts, at), FILE_PATH)
REPLACE(ssize_t, "write", pwritev64, (int file, const struct iovec *from, int parts, off64_t at), (file, from, parts, at), FILE_PATH)
REPLACE(int, "allocate", fallocate, (int file, int mode, off_t at, off_t length), (file, mode, at, length), FILE_PATH)
REPLACE(int, "allocate", fallocate64, (int file, int mode, off64_t at, off64_t length), (file, mode, at, length), FILE_PATH)
REPLACE(ssize_t, "copy", copy_file_range, (int from, off64_t *a, int file, off64_t *b, size_t size, unsigned flags), (from, a, file, b, HALF, flags), FILE_PATH)
