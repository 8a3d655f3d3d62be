/* Preloaded into a process that writes a log: at the N-th step by which bytes leave the process,
 * kill it, or let the step fail as a broken or full disk would. stops_begin(N, how) counts anew;
 * how is 0 to kill before the step, 1 to kill behind it, 2 for EIO, 3 for ENOSPC, 4 to count only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

static long left = -1, steps = 0;
static int how = 0;

void stops_begin(long count, int manner) { left = count; how = manner; steps = 0; }
long stops_count(void) { return steps; }

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

/* Whether the step may go on; 0: fail with errno set. */
static int before(void) {
    steps++;
    if (left < 0 || --left != 0) return 1;
    if (how == 0) die();
    if (how == 2) { errno = EIO; left = -1; return 0; }
    if (how == 3) { errno = ENOSPC; left = -1; return 0; }
    return 1;
}

static void behind(void) { if (left == 0 && how == 1) die(); }

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define STEP(type, name, parameters, arguments, ...) \
    type name parameters { \
        REAL(type, #name, __VA_ARGS__); \
        if (!before()) return -1; \
        type result = real arguments; \
        int kept = errno; \
        behind(); \
        errno = kept; \
        return result; \
    }

STEP(ssize_t, pwrite, (int d, const void *b, size_t n, off_t o), (d, b, n, o), int, const void *, size_t, off_t)
STEP(ssize_t, pwrite64, (int d, const void *b, size_t n, off64_t o), (d, b, n, o), int, const void *, size_t, off64_t)
STEP(int, fsync, (int d), (d), int)
STEP(int, fdatasync, (int d), (d), int)
STEP(int, rename, (const char *a, const char *b), (a, b), const char *, const char *)
STEP(int, unlink, (const char *a), (a), const char *)
STEP(int, rmdir, (const char *a), (a), const char *)
STEP(int, mkdir, (const char *a, mode_t m), (a, m), const char *, mode_t)
STEP(ssize_t, send, (int d, const void *b, size_t n, int f), (d, b, n, f), int, const void *, size_t, int)

ssize_t write(int d, const void *b, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (d < 3) return real(d, b, n);
    if (!before()) return -1;
    ssize_t result = real(d, b, n);
    int kept = errno;
    behind();
    errno = kept;
    return result;
}
