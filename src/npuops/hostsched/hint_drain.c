/* All that waits in a connection that hints come by, in one call, and of it what counts. hint_drain.py does the same,
 * slower; tests hold the two to the same answers. Who may say what is decided in hint_socket.py. look_library.py declares
 * the structures once more.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The wire format (hint_wire.py). */
enum { SIZE = 64, MAX_SIZE = 256, ABOUT = 8, ABOUT_SIZE = 8, BATCH = 32 };
static const char BEGINNING[] = {'N', 'P', 'U', 'H', 1};

struct word {
    int32_t size; /* 0: a later one about the same followed */
    struct ucred said_by;
    char data[MAX_SIZE];
};

struct drained {
    double words_left;
    int32_t read, slots, superseded, malformed, bad_size, ended, error;
};

union control {
    char bytes[CMSG_SPACE(sizeof(struct ucred))];
    struct cmsghdr header;
};

/* The kernel's word on who sent it: whether there is one. Files that came along are closed. */
static int sender(struct msghdr *message, struct ucred *found)
{
    int known = 0;

    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each; each = CMSG_NXTHDR(message, each)) {
        size_t size = each->cmsg_len - CMSG_LEN(0);

        if (each->cmsg_level != SOL_SOCKET)
            continue;
        if (each->cmsg_type == SCM_CREDENTIALS && size >= sizeof *found) {
            memcpy(found, CMSG_DATA(each), sizeof *found);
            known = found->pid > 0;
        } else if (each->cmsg_type == SCM_RIGHTS) {
            for (size_t at = 0; at + sizeof(int) <= size; at += sizeof(int)) {
                int fd;

                memcpy(&fd, CMSG_DATA(each) + at, sizeof fd);
                close(fd);
            }
        }
    }
    return known;
}

/* Keeps it in place of an earlier one of the same sender about the same. */
static void keep(struct word *words, struct drained *found, const struct ucred *said_by, const char *data, size_t size)
{
    struct word *word = words + found->slots;

    for (struct word *each = words; each < word; each++)
        if (each->size && !memcmp(each->data + ABOUT, data + ABOUT, ABOUT_SIZE) &&
            !memcmp(&each->said_by, said_by, sizeof *said_by)) {
            each->size = 0;
            found->superseded++;
            break;
        }
    word->size = (int32_t)size;
    word->said_by = *said_by;
    memcpy(word->data, data, size);
    found->slots++;
}

/* Reads a connection until it is empty, ended, sent too much, or `most` messages were read (`words` has as many slots).
 * A message costs one of `words_left`, and one that is no hint `bad` more; below zero it is a flood. */
void npuops_drain(int fd, int most, double words_left, double bad, struct word *words, struct drained *found)
{
    char data[BATCH][MAX_SIZE];
    union control control[BATCH];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH] = {0};

    *found = (struct drained){.words_left = words_left};
    while (found->read < most) {
        int wanted = most - found->read < BATCH ? most - found->read : BATCH, got;

        for (int each = 0; each < wanted; each++) {
            parts[each] = (struct iovec){data[each], MAX_SIZE};
            messages[each].msg_hdr = (struct msghdr){.msg_iov = parts + each,
                                                     .msg_iovlen = 1,
                                                     .msg_control = control[each].bytes,
                                                     .msg_controllen = sizeof control[each].bytes};
        }
        got = recvmmsg(fd, messages, (unsigned)wanted, MSG_DONTWAIT, NULL);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (got < 0) {
            found->error = errno;
            found->ended = 1;
            return;
        }
        for (int each = 0; each < got; each++) {
            struct msghdr *message = &messages[each].msg_hdr;
            size_t size = messages[each].msg_len;
            struct ucred said_by;
            int known = sender(message, &said_by);

            if (found->ended || found->words_left < 0)
                continue; /* only its files are closed */
            if (!size && !message->msg_controllen) {
                found->ended = 1;
                continue;
            }
            found->read++;
            found->words_left -= 1;
            if (message->msg_flags & MSG_TRUNC || !known || size < SIZE ||
                memcmp(data[each], BEGINNING, sizeof BEGINNING)) {
                found->words_left -= bad;
                found->malformed++;
                found->bad_size = (int32_t)size;
            } else {
                keep(words, found, &said_by, data[each], size);
            }
        }
        if (found->ended || found->words_left < 0 || got < wanted)
            return;
    }
}
