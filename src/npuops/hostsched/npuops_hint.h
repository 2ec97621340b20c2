/* Tell npuops what your threads are for. One header, C99 and C++11, no library; include it first, or ask for POSIX
 * yourself (-D_POSIX_C_SOURCE=200809L). Nothing here waits, and nothing fails because no agent is there.
 *
 *     npuops_hints hints;
 *     npuops_hint hint = {0};
 *     npuops_hint_open(&hints, NULL);
 *     hint.kind = NPUOPS_HINT_LATENCY;
 *     hint.says = NPUOPS_HINT_SLO | NPUOPS_HINT_QUEUED;
 *     hint.slo_us = 5000;
 *     hint.queued = 1;
 *     npuops_hint_send(&hints, &hint);      when something changes; 100 a second are plenty, 1000 the most
 *     npuops_hint_close(&hints);            the agent forgets what was said
 *
 * A queue or a slack counts for a second, so say it again in a long request. One npuops_hints is for one thread at a
 * time; a child of a fork opens its own.
 */
#ifndef NPUOPS_HINT_H
#define NPUOPS_HINT_H

#if defined(__STRICT_ANSI__) && !defined(_POSIX_C_SOURCE) && !defined(_GNU_SOURCE) && !defined(_DEFAULT_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef CLOCK_MONOTONIC
#error "npuops_hint.h needs POSIX clocks: include it first, or compile with -D_POSIX_C_SOURCE=200809L"
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { NPUOPS_HINT_UNSAID = 0, NPUOPS_HINT_LATENCY = 1, NPUOPS_HINT_BATCH = 2, NPUOPS_HINT_BACKGROUND = 3 };

/* In `says`: which of these fields are meant. PROCESS: tid stands for all threads of its process. */
enum { NPUOPS_HINT_SLO = 1, NPUOPS_HINT_SLACK = 2, NPUOPS_HINT_QUEUED = 4, NPUOPS_HINT_PROCESS = 8 };

enum { NPUOPS_HINT_BYTES = 64, NPUOPS_HINT_RETRY_US = 1000000 };

typedef struct {
    uint32_t tid;     /* a thread of this process or of one below it (gettid); 0: all threads of this process */
    uint32_t says;    /* NPUOPS_HINT_SLO | ... */
    int kind;         /* NPUOPS_HINT_LATENCY ... */
    int64_t slo_us;   /* answers should take no longer */
    int64_t slack_us; /* left to the most urgent request now; negative: it is late */
    uint64_t queued;  /* requests that wait or are worked on */
    uint64_t served;  /* answers so far */
    uint64_t missed;  /* of these, too late */
} npuops_hint;

typedef struct {
    int fd;            /* -1 while no agent is there */
    int64_t retry_us;  /* when to look for one again */
    uint64_t sent;     /* hints that the kernel took */
    uint64_t unsent;   /* hints that nobody listened to */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* "": as docs/hostsched-hints.md says */
} npuops_hints;

static inline int64_t npuops_hint_now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static inline void npuops_hint_put(unsigned char *at, uint64_t value, int bytes) {
    int i;
    for (i = 0; i < bytes; i++) at[i] = (unsigned char)(value >> (8 * i));
}

static inline int npuops_hint_call(npuops_hints *hints, const char *folder, const char *name) {
    struct sockaddr_un place;
    size_t before = strlen(folder), after = strlen(name);
    int fd;
    if (before + after + 1 > sizeof place.sun_path) return -1;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    memset(&place, 0, sizeof place);
    place.sun_family = AF_UNIX;
    memcpy(place.sun_path, folder, before);
    memcpy(place.sun_path + before, name, after);
    if (connect(fd, (const struct sockaddr *)&place, sizeof place) != 0) {
        close(fd);
        return -1;
    }
    hints->fd = fd;
    return 0;
}

static inline void npuops_hint_connect(npuops_hints *hints) {
    const char *named = hints->path[0] ? hints->path : getenv("NPUOPS_HINT_SOCKET");
    const char *own = getenv("XDG_RUNTIME_DIR");
    if (named && named[0]) {
        (void)npuops_hint_call(hints, named, "");
        return;
    }
    if (own && own[0] && npuops_hint_call(hints, own, "/npuops/hostsched.sock") == 0) return;
    (void)npuops_hint_call(hints, "/run", "/npuops/hostsched.sock");
}

/* `path` of the agent's socket, or NULL for the usual place. The first hint looks for the agent. */
static inline void npuops_hint_open(npuops_hints *hints, const char *path) {
    memset(hints, 0, sizeof *hints);
    hints->fd = -1;
    if (path && strlen(path) < sizeof hints->path) memcpy(hints->path, path, strlen(path));
}

static inline void npuops_hint_close(npuops_hints *hints) {
    if (hints->fd >= 0) close(hints->fd);
    hints->fd = -1;
}

/* 1: an agent was sent it; 0: none is there, or it does not read. Keeps errno. */
static inline int npuops_hint_send(npuops_hints *hints, const npuops_hint *hint) {
    unsigned char message[NPUOPS_HINT_BYTES];
    int64_t now_us = npuops_hint_now_us();
    int kept = errno, said = 0;
    if (hints->fd < 0 && now_us >= hints->retry_us) {
        hints->retry_us = now_us + NPUOPS_HINT_RETRY_US;
        npuops_hint_connect(hints);
    }
    if (hints->fd >= 0) {
        memset(message, 0, sizeof message);
        memcpy(message, "NPUH\1", 5);
        message[5] = (unsigned char)hint->kind;
        npuops_hint_put(message + 6, NPUOPS_HINT_BYTES, 2);
        npuops_hint_put(message + 8, hint->tid, 4);
        npuops_hint_put(message + 12, hint->says, 4);
        npuops_hint_put(message + 16, (uint64_t)now_us, 8);
        npuops_hint_put(message + 24, (uint64_t)hint->slo_us, 8);
        npuops_hint_put(message + 32, (uint64_t)hint->slack_us, 8);
        npuops_hint_put(message + 40, hint->queued, 8);
        npuops_hint_put(message + 48, hint->served, 8);
        npuops_hint_put(message + 56, hint->missed, 8);
        said = send(hints->fd, message, sizeof message, MSG_NOSIGNAL) == (ssize_t)sizeof message;
        if (!said && errno != EAGAIN && errno != EINTR) npuops_hint_close(hints);
    }
    if (said) hints->sent++;
    else hints->unsent++;
    errno = kept;
    return said;
}

#ifdef __cplusplus
}
#endif

#endif
