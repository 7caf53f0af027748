/* The limit: an epoll loop that parses nothing. For every read it writes one prepared answer with writev.

   limit PORT BODY_FILE

   What a server on this machine can't be faster than, unless it does more with one system call. It takes each read for one
   whole request: so it is with small requests on loopback, and nothing else may ask it. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FD 65536
#define MAX_EVENTS 512

static char head[512], *body;
static size_t head_bytes, body_bytes;
/* How much of an answer under way is written; 0: none is. */
static size_t written[MAX_FD];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void load(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) fail(path);
    body_bytes = (size_t)ftell(file);
    body = malloc(body_bytes);
    rewind(file);
    if (!body || fread(body, 1, body_bytes, file) != body_bytes) fail(path);
    fclose(file);
    head_bytes = (size_t)snprintf(head, sizeof head,
                                  "HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: %zu\r\n\r\n", body_bytes);
}

static int serve_at(int port) {
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listening, (struct sockaddr *)&at, sizeof at) || listen(listening, 1024)) fail("listen");
    return listening;
}

static void watch(int poll, int how, int fd, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poll, how, fd, &event)) fail("epoll_ctl");
}

static void hang_up(int fd) {
    written[fd] = 0;
    close(fd);
}

/* Writes what is left of the answer. A client that reads slowly is not read from meanwhile. */
static void answer(int poll, int fd, int was_waiting) {
    size_t at = written[fd], whole = head_bytes + body_bytes;
    struct iovec parts[2] = {{head + at, head_bytes - at}, {body, body_bytes}};
    int first = 0;
    if (at >= head_bytes) {
        first = 1;
        parts[1].iov_base = body + (at - head_bytes);
        parts[1].iov_len = whole - at;
    }
    ssize_t n = writev(fd, parts + first, 2 - first);
    if (n < 0 && errno != EAGAIN) {
        hang_up(fd);
        return;
    }
    at += n > 0 ? (size_t)n : 0;
    written[fd] = at == whole ? 0 : at;
    if (at < whole && !was_waiting) watch(poll, EPOLL_CTL_MOD, fd, EPOLLOUT);
    if (at == whole && was_waiting) watch(poll, EPOLL_CTL_MOD, fd, EPOLLIN);
}

static void welcome(int poll, int listening) {
    int fd, on = 1;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_FD) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(poll, EPOLL_CTL_ADD, fd, EPOLLIN);
    }
}

int main(int count, char **words) {
    static char got[16384];
    struct epoll_event events[MAX_EVENTS];
    if (count != 3) {
        fprintf(stderr, "limit PORT BODY_FILE\n");
        return 2;
    }
    load(words[2]);
    int listening = serve_at(atoi(words[1])), poll = epoll_create1(0);
    watch(poll, EPOLL_CTL_ADD, listening, EPOLLIN);
    for (;;) {
        int ready = epoll_wait(poll, events, MAX_EVENTS, -1);
        for (int n = 0; n < ready; n++) {
            int fd = events[n].data.fd;
            if (fd == listening) {
                welcome(poll, listening);
            } else if (events[n].events & EPOLLOUT) {
                answer(poll, fd, 1);
            } else {
                ssize_t read_bytes = read(fd, got, sizeof got);
                if (read_bytes > 0) answer(poll, fd, 0);
                else if (read_bytes == 0 || errno != EAGAIN) hang_up(fd);
            }
        }
    }
}
