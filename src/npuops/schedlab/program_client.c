/* A client that asks when it is time to, whether or not the last answer came: an open loop.
 *
 * It stands for other machines. Where it may, it runs before all others (SCHED_FIFO): what it measures is then the
 * server's lateness and not its own. Request k goes on connection k mod CONNECTIONS, behind those that wait there.
 */
#define _GNU_SOURCE
#include "program_load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 1 << 20, MOST = 256 };

typedef int64_t parse(const char *at, int64_t count, int *fine);

struct line {
    char *in;
    int64_t have;      /* bytes of replies that are not whole yet */
    int64_t asked;     /* so many requests were given to it */
    int64_t sent;      /* bytes of them */
    int64_t answered;
};

static struct line lines[MOST];
static struct pollfd fds[MOST];
static int64_t connections, length;
static const char *request;
static parse *reply;
static int64_t *done;

static int64_t find(const char *at, int64_t count, const char *what)
{
    const char *found = count > 0 ? memmem(at, (size_t)count, what, strlen(what)) : NULL;
    return found ? found - at : -1;
}

static int64_t chunks(const char *at, int64_t count, int64_t from)
{
    for (;;) {
        int64_t line = find(at + from, count - from, "\r\n");
        if (line < 0)
            return 0;
        int64_t size = strtoll(at + from, NULL, 16);
        if (size < 0 || size > ROOM)
            return -1;
        from += line + 2 + size + 2;
        if (from > count)
            return 0;
        if (!size)
            return from;
    }
}

int64_t http_reply(const char *at, int64_t count, int *fine)
{
    int64_t head = find(at, count, "\r\n\r\n"), size = -1, chunked = 0;
    if (count >= 5 && memcmp(at, "HTTP/", 5))
        return -1;
    if (head < 0)
        return 0;
    *fine = head > 12 && !memcmp(at + 8, " 200", 4);
    for (int64_t from = 0; from < head;) {
        int64_t next = find(at + from, head + 2 - from, "\r\n");
        if (!strncasecmp(at + from, "content-length:", 15))
            size = strtoll(at + from + 15, NULL, 10);
        if (!strncasecmp(at + from, "transfer-encoding: chunked", 26))
            chunked = 1;
        from += next + 2;
    }
    if (chunked)
        return chunks(at, count, head + 4);
    if (size < 0 || size > ROOM)
        return -1;
    return head + 4 + size <= count ? head + 4 + size : 0;
}

int64_t redis_reply(const char *at, int64_t count, int *fine)
{
    int64_t from = 0;
    *fine = count > 0 && *at != '-';
    for (int64_t left = 1; left > 0; left--) {
        int64_t line = find(at + from, count - from, "\r\n");
        if (line < 0)
            return 0;
        char kind = at[from];
        int64_t size = strtoll(at + from + 1, NULL, 10);
        from += line + 2;
        if (size > ROOM || !strchr("+-:$*", kind))
            return -1;
        if (kind == '*')
            left += size > 0 ? size : 0;
        if (kind == '$' && size >= 0)
            from += size + 2;
        if (from > count)
            return 0;
    }
    return from;
}

int64_t memcached_reply(const char *at, int64_t count, int *fine)
{
    int64_t line = find(at, count, "\r\n");
    *fine = count >= 5 && !memcmp(at, "VALUE", 5);
    if (line < 0 || !*fine)
        return line < 0 ? 0 : line + 2;
    const char *last = memrchr(at, ' ', (size_t)line);
    int64_t size = last ? strtoll(last, NULL, 10) : -1;
    if (size < 0 || size > ROOM)
        return -1;
    int64_t whole = line + 2 + size + 2 + 5;   /* the value, then END */
    return whole <= count ? whole : 0;
}

static void open_line(int64_t index, uint16_t port)
{
    struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    lines[index].in = malloc(ROOM);
    if (fd < 0 || !lines[index].in || connect(fd, (struct sockaddr *)&there, sizeof there))
        give_up("connect");
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
        give_up("connect");
    fds[index] = (struct pollfd){ fd, POLLIN, 0 };
}

/* As far as the connection takes it now. */
static void push(int64_t index)
{
    struct line *one = &lines[index];
    while (one->sent < one->asked * length) {
        int64_t from = one->sent % length;
        ssize_t count = send(fds[index].fd, request + from, (size_t)(length - from), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (count < 0)
            give_up("send");
        one->sent += count;
    }
    fds[index].events = (short)(one->sent < one->asked * length ? POLLIN | POLLOUT : POLLIN);
}

/* Returns how many requests were answered by what came; their instants go to `done`, unless that is not wanted yet. */
static int64_t take(int64_t index, int64_t start)
{
    struct line *one = &lines[index];
    ssize_t count = recv(fds[index].fd, one->in + one->have, (size_t)(ROOM - one->have), MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (count <= 0)
        refuse("the server closed a connection, or its answer is too long");
    one->have += count;
    int64_t at = now_ns() - start, from = 0, found = 0, size;
    int fine = 0;
    while ((size = reply(one->in + from, one->have - from, &fine)) > 0) {
        if (one->answered >= one->asked)
            refuse("an answer that nobody asked for");
        if (done)
            done[index + one->answered * connections] = fine ? at : REFUSED;
        else if (!fine)
            refuse("the server refuses the request");
        from += size;
        one->answered++;
        found++;
    }
    if (size < 0)
        refuse("an answer that cannot be read");
    memmove(one->in, one->in + from, (size_t)(one->have - from));
    one->have -= from;
    return found;
}

/* Sleeps until something comes, or this instant. */
static int64_t serve(int64_t until, int64_t start)
{
    int64_t left = until - now_ns(), found = 0;
    struct timespec wait = { left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0 };
    if (ppoll(fds, (nfds_t)connections, &wait, NULL) < 0 && errno != EINTR)
        give_up("poll");
    for (int64_t i = 0; i < connections; i++) {
        if (fds[i].revents & POLLOUT)
            push(i);
        if (fds[i].revents & (POLLIN | POLLERR | POLLHUP))
            found += take(i, start);
    }
    return found;
}

static void begin_again(void)
{
    for (int64_t i = 0; i < connections; i++)
        lines[i].asked = lines[i].sent = lines[i].answered = 0;
}

static void warm_up(int64_t limit)
{
    int64_t open = connections;
    for (int64_t i = 0; i < connections; i++) {
        lines[i].asked = 1;
        push(i);
    }
    while (open > 0 && now_ns() < limit)
        open -= serve(limit, 0);
    if (open > 0)
        refuse("the server does not answer");
    begin_again();
}

int ask(char **words)
{
    connections = number(words[2]);
    int64_t window = number(words[3]), patience = number(words[4]);
    struct span what = map_file(words[5], 0), arrivals = map_file(words[6], 0), results = map_file(words[7], 1);
    request = (const char *)(what.at + 1);   /* behind its length */
    length = what.count ? what.at[0] : 0;
    if (!length || connections < 1 || connections > MOST || results.count != arrivals.count + 1)
        refuse("a request, some connections, and results for all arrivals are needed");
    reply = !strcmp(words[1], "redis") ? redis_reply : !strcmp(words[1], "memcached") ? memcached_reply : http_reply;
    for (int64_t i = 0; i < connections; i++)
        open_line(i, (uint16_t)number(words[0]));
    warm_up(now_ns() + 30000000000);
    results.at[0] = !sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){ .sched_priority = 1 });
    done = results.at + 1;
    int64_t start = await_go(), next = 0, open = arrivals.count, end = start + window + patience;
    while (open > 0 && now_ns() < end) {
        for (; next < arrivals.count && start + arrivals.at[next] <= now_ns(); next++) {
            lines[next % connections].asked++;
            push(next % connections);
        }
        open -= serve(next < arrivals.count ? start + arrivals.at[next] : end, start);
    }
    return 0;
}
