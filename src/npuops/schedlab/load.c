/* Loads on the real kernel: one process per player of a mix.
 *
 *   load calibrate                                   prints iterations per millisecond: compute scan
 *   load play SCHEDULE RESULTS CONTROL REPORT PARENT  four file descriptors and a process number
 *
 * The director (this program's first process) starts the players, each session of the mix in one of its own, so that
 * it is an autogroup; says on REPORT when all are ready; lets them go when a byte comes on CONTROL; and ends them all
 * when CONTROL closes or PARENT ends, however that ends. A player ends with the director.
 *
 * Work is counted in iterations that were calibrated before: reading the thread's CPU clock in a loop makes the kernel
 * update that task's account, and so changes how it is scheduled. The layout of both files is in schedule_file.py.
 */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(4);
}

/* One process becomes a session, starts its players as the director's children, and is gone. */
static void usher(int64_t session, int64_t leader, const int (*pipes)[2], int ready, pid_t director)
{
    const struct player *all = (const struct player *)(schedule + head->players_at);
    if (setsid() < 0)
        _exit(4);
    for (int64_t i = leader; i < head->players; i++) {
        if (all[i].session != session)
            continue;
        long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
        if (pid < 0)
            _exit(4);
        struct result *one = (struct result *)(results + all[i].result_at);
        if (pid > 0) {
            one->pid = pid;   /* here, so that the director knows it before the player has done anything */
            continue;
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != director)
            _exit(4);
        for (int64_t k = 0; k < head->players; k++) {   /* an end that stays open would hide that a peer ended */
            if (k != i)
                close(pipes[k][0]);
            if (k != all[i].peer)
                close(pipes[k][1]);
        }
        play(i, ready, pipes[i][0], all[i].peer < 0 ? -1 : pipes[all[i].peer][1]);
    }
    _exit(0);
}

static void start(int children, int ready)
{
    const struct player *all = (const struct player *)(schedule + head->players_at);
    int(*pipes)[2] = calloc((size_t)head->players, sizeof *pipes);
    pid_t director = getpid();
    for (int64_t i = 0; i < head->players; i++)
        if (pipe(pipes[i]))
            give_up("pipe");
    for (int64_t i = 0; i < head->players; i++) {
        int64_t before = 0;
        while (before < i && all[before].session != all[i].session)
            before++;
        if (before < i)
            continue;
        pid_t pid = fork();
        int status = 0;
        if (pid < 0)
            give_up("fork");
        if (pid == 0) {
            close(children);
            usher(all[i].session, i, (const int(*)[2])pipes, ready, director);
        }
        if (waitpid(pid, &status, 0) != pid || status) {
            errno = EAGAIN;
            give_up("fork of a player");
        }
    }
    for (int64_t i = 0; i < head->players; i++) {
        close(pipes[i][0]);
        close(pipes[i][1]);
    }
    free(pipes);
}

static void end_all(void)
{
    const struct player *all = (const struct player *)(schedule + head->players_at);
    for (int64_t i = 0; i < head->players; i++) {
        struct result *one = (struct result *)(results + all[i].result_at);
        if (one->pid > 0 && one->status < 0)
            kill((pid_t)one->pid, SIGKILL);
    }
}

/* Returns how many are left. A player that ends badly ends the play: what the others did meanwhile means nothing. */
static int64_t reap(int64_t left, int *spoilt)
{
    const struct player *all = (const struct player *)(schedule + head->players_at);
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        left--;
        for (int64_t i = 0; i < head->players; i++) {
            struct result *one = (struct result *)(results + all[i].result_at);
            if (one->pid == pid) {
                one->status = status;
                if (status && !*spoilt)
                    stage->culprit = (int32_t)i + 1;
            }
        }
        if (status && !*spoilt) {
            *spoilt = 1;
            end_all();
        }
    }
    return left;
}

static void watch(int control, int report, int parent, int children, int ready)
{
    int64_t left = head->players, waiting = head->players;
    int spoilt = 0;
    struct pollfd all[4] = { { control, POLLIN, 0 }, { parent, POLLIN, 0 }, { children, POLLIN, 0 }, { ready, POLLIN, 0 } };
    while (left > 0) {
        char bytes[256];
        struct signalfd_siginfo told;
        if (poll(all, 4, -1) < 0)
            continue;
        if (all[2].revents & POLLIN && read(children, &told, sizeof told) > 0)
            left = reap(left, &spoilt);
        if (all[3].revents) {
            ssize_t got = read(ready, bytes, sizeof bytes);
            waiting -= got > 0 ? got : 0;
            if (got <= 0 || waiting == 0)
                all[3].fd = -1;
            if (got > 0 && waiting == 0 && write(report, "r", 1) != 1)
                end_all();
        }
        if (all[0].revents || all[1].revents) {
            if (all[1].revents || read(control, bytes, 1) != 1) {
                spoilt = 1;
                end_all();
                all[0].fd = all[1].fd = -1;
            } else {
                __atomic_store_n(&stage->go, 1, __ATOMIC_RELEASE);
                syscall(SYS_futex, &stage->go, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
            }
        }
    }
    exit(spoilt ? 3 : 0);
}

static void direct(char **words)
{
    struct stat size;
    sigset_t ended;
    int schedule_fd = atoi(words[0]), results_fd = atoi(words[1]), control = atoi(words[2]), report = atoi(words[3]);
    int ready[2], parent = (int)syscall(SYS_pidfd_open, atoi(words[4]), 0);   /* -1 before 5.3: CONTROL closes then */
    if (getppid() != atoi(words[4]))
        exit(0);
    if (fstat(schedule_fd, &size))
        give_up("schedule");
    schedule = mmap(NULL, (size_t)size.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, schedule_fd, 0);
    if (fstat(results_fd, &size))
        give_up("results");
    results = mmap(NULL, (size_t)size.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, results_fd, 0);
    if (schedule == MAP_FAILED || results == MAP_FAILED)
        give_up("mmap");
    head = (const struct head *)schedule;
    stage = (struct stage *)results;
    if (head->magic != MAGIC || head->version != VERSION || stage->magic != MAGIC || stage->version != VERSION) {
        errno = EPROTO;
        give_up("the schedule is of another version");
    }
    if (pipe(ready))
        give_up("pipe");
    fcntl(control, F_SETFD, FD_CLOEXEC);
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ended, NULL);
    signal(SIGPIPE, SIG_IGN);
    int children = signalfd(-1, &ended, SFD_CLOEXEC | SFD_NONBLOCK);
    if (children < 0)
        give_up("signalfd");
    start(children, ready[1]);
    close(ready[1]);
    watch(control, report, parent, children, ready[0]);
}

int main(int count_of_words, char **words)
{
    if (count_of_words == 2 && !strcmp(words[1], "calibrate")) {
        long long plain = per_ms(COMPUTE), scanning = per_ms(SCAN);
        if (plain <= 0 || scanning <= 0)
            give_up("calibrate");
        printf("%lld %lld\n", plain, scanning);
        return 0;
    }
    if (count_of_words == 7 && !strcmp(words[1], "play"))
        direct(words + 2);
    fprintf(stderr, "load calibrate | load play SCHEDULE RESULTS CONTROL REPORT PARENT\n");
    return 2;
}
