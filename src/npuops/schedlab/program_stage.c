/* The program behind loads of real programs.
 *
 *   attend CONTROL REPORT PARENT -- COMMAND…   runs it in a session of its own, and leaves nothing of it behind
 *   ask PORT PROTOCOL CONNECTIONS WINDOW_NS PATIENCE_NS REQUEST ARRIVALS RESULTS     an open-loop client
 *   wake MESSENGERS WORKERS ITERATIONS ARRIVALS RESULTS                              threads that wake threads
 *   crew COUNT RESULTS                                                               processes that never sleep
 *   calibrate                                  prints iterations of `compute` per millisecond
 *
 * REQUEST, ARRIVALS and RESULTS are descriptors of memory files: bytes to send, instants in ns since the beginning,
 * and one word for each arrival. The beginning is told on stdin, in ns of CLOCK_MONOTONIC, 8 bytes.
 */
#define _GNU_SOURCE
#include "program_load.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

enum { TRIES = 5, PATIENCE_MS = 5000, SOME = 20000000 };

static volatile uint64_t sink;

_Noreturn void give_up(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(4);
}

_Noreturn void refuse(const char *words)
{
    fprintf(stderr, "%s\n", words);
    exit(4);
}

int64_t number(const char *word)
{
    char *end;
    int64_t found = strtoll(word, &end, 10);
    if (*end || end == word || found < 0)
        refuse("not a number");
    return found;
}

int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void nap_until(int64_t instant)
{
    struct timespec t = { instant / 1000000000, instant % 1000000000 };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

struct span map_file(const char *fd, int writable)
{
    struct stat info;
    int descriptor = (int)number(fd);
    if (fstat(descriptor, &info))
        give_up("memory file");
    if (!info.st_size)
        return (struct span){ NULL, 0 };
    void *at = mmap(NULL, (size_t)info.st_size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, descriptor, 0);
    if (at == MAP_FAILED)
        give_up("memory file");
    return (struct span){ at, info.st_size / 8 };
}

int64_t await_go(void)
{
    int64_t start = 0;
    if (write(1, "r", 1) != 1)
        give_up("say that it is ready");
    if (read(0, &start, sizeof start) != sizeof start)
        exit(0);   /* nobody wants it any more */
    return start;
}

void compute(int64_t iterations)
{
    uint64_t x = sink | 1;
    for (int64_t i = 0; i < iterations; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));   /* no closed form, please */
    }
    sink = x;
}

static int calibrate(void)
{
    int64_t best = 0;
    for (int i = 0; i < TRIES; i++) {   /* the fastest: whatever disturbs only makes it slower */
        struct timespec a, b;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        compute(SOME);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        int64_t spent = (int64_t)(b.tv_sec - a.tv_sec) * 1000000000 + (b.tv_nsec - a.tv_nsec);
        int64_t rate = (int64_t)SOME * 1000000 / (spent > 0 ? spent : 1);
        best = rate > best ? rate : best;
    }
    printf("%lld\n", (long long)best);
    return 0;
}

/* Kills all children, and those of theirs who thereby become ours, until there are none. */
static void kill_family(void)
{
    char text[4096];
    for (;;) {
        int file = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
        ssize_t count = file < 0 ? 0 : read(file, text, sizeof text - 1);
        if (file >= 0)
            close(file);
        text[count > 0 ? count : 0] = 0;
        for (char *at = text, *end; *at; at = end) {
            long pid = strtol(at, &end, 10);
            if (end == at)
                break;
            if (*end)   /* the last word may be cut off */
                kill((pid_t)pid, SIGKILL);
        }
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        if (waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD)
            return;
        nap_until(now_ns() + 1000000);   /* the list may miss some while others end: look again rather than wait */
    }
}

static pid_t start(char **command, int report, const sigset_t *mask)
{
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || setsid() < 0)
        _exit(127);
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(command[0], command);
    int64_t failed = -errno;
    if (write(report, &failed, sizeof failed) < 0)
        _exit(126);
    _exit(127);
}

/* Ends with the command, or when CONTROL closes, or PARENT ends; the command is first asked to end, then made to. */
static int attend(char **words)
{
    int control = (int)number(words[0]), report = (int)number(words[1]), status = 0;
    pid_t parent = (pid_t)number(words[2]);
    sigset_t ours, before;
    sigemptyset(&ours);
    sigaddset(&ours, SIGCHLD);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGHUP);
    sigprocmask(SIG_BLOCK, &ours, &before);
    fcntl(control, F_SETFD, FD_CLOEXEC);
    fcntl(report, F_SETFD, FD_CLOEXEC);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    int caught = signalfd(-1, &ours, SFD_CLOEXEC), maker = (int)syscall(SYS_pidfd_open, parent, 0);
    if (caught < 0 || (maker < 0 && errno != ENOSYS))
        give_up("signalfd or pidfd");
    pid_t pid = start(words + 4, report, &before);
    int64_t told = pid, ended = 0, deadline = 0;
    if (write(report, &told, sizeof told) != sizeof told)
        give_up("report");
    close(report);
    while (!ended) {
        struct pollfd fds[] = { { caught, POLLIN, 0 }, { deadline ? -1 : control, POLLIN, 0 }, { deadline ? -1 : maker, POLLIN, 0 } };
        int64_t left = deadline ? (deadline - now_ns()) / 1000000 : -1;
        int found = poll(fds, 3, deadline && left < 0 ? 0 : (int)left);
        if (!found)
            break;
        struct signalfd_siginfo info = { 0 };
        if (fds[0].revents && read(caught, &info, sizeof info) < 0)
            give_up("signals");
        pid_t one;
        int how;
        while ((one = waitpid(-1, &how, WNOHANG)) > 0)
            if (one == pid)
                ended = 1, status = how;
        if (!ended && !deadline && (fds[1].revents || fds[2].revents || (fds[0].revents && info.ssi_signo != SIGCHLD))) {
            kill(pid, SIGTERM);
            kill(pid, SIGCONT);
            deadline = now_ns() + (int64_t)PATIENCE_MS * 1000000;
        }
    }
    if (!ended)
        kill(-pid, SIGKILL);   /* not reaped yet: the number is still its own */
    kill_family();
    return ended && WIFEXITED(status) ? WEXITSTATUS(status) : 128 + (WIFSIGNALED(status) ? WTERMSIG(status) : SIGKILL);
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    signal(SIGPIPE, SIG_IGN);
    if (!strcmp(word, "attend"))
        signal(SIGPIPE, SIG_DFL);   /* what it starts shall find the usual */
    if (!strcmp(word, "attend") && argc > 6)
        return attend(argv + 2);
    if (!strcmp(word, "ask") && argc == 10)
        return ask(argv + 2);
    if (!strcmp(word, "wake") && argc == 7)
        return wake(argv + 2);
    if (!strcmp(word, "crew") && argc == 4)
        return crew(argv + 2);
    if (!strcmp(word, "calibrate") && argc == 2)
        return calibrate();
    refuse("see the head of program_stage.c");
}
