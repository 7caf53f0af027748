/* A cluster that costs next to nothing: chunked WAV for every request, at once or as fast as it would be spoken.

   cluster HOST PORT BYTES CHUNK_BYTES THINK_MS PACE

   BYTES of body, of 24 kHz speech, in chunks of CHUNK_BYTES, the first one after THINK_MS. PACE is in seconds of speech a
   second: 1 sends a chunk when it would have been spoken to its end since the one before; 0 sends all of them together. At
   the beginning of each chunk, after the WAV head in the first one, stands STAMP and the nanosecond at which it was sent
   (CLOCK_MONOTONIC, little-endian): so whoever hears it knows how long it was on its way. `GET /asked` says how often it was
   asked for speech; any other GET is `ok`. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 16384
#define MAX_HEAD 16384
#define MAX_BODY (8 << 20)
#define WAV_HEAD 44
#define SECOND_BYTES 48000
#define STAMP "edgebell"
#define STAMP_BYTES 16

/* One answer at a time. due_ns: of its next chunk. unsent: what the system did not take yet. */
struct connection {
    int fd, open, in_line;
    int64_t due_ns;
    size_t sent_bytes;
    char head[MAX_HEAD + 1];
    size_t head_bytes;
    char *unsent;
    size_t unsent_bytes;
};

/* Who waits for a time. All of a line wait equally long, so who joined it first is due first. */
struct line {
    struct connection *members[MAX_CONNECTIONS];
    int first, count;
};

static struct line thinking, speaking;
static size_t body_bytes, chunk_bytes;
static int64_t think_ns;
static double pace;
static unsigned long long asked;
static int polling, open_count;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void join(struct line *line, struct connection *one) {
    one->in_line = 1;
    line->members[(line->first + line->count++) % MAX_CONNECTIONS] = one;
}

static void put(char *at, uint32_t value, int bytes) {
    for (int n = 0; n < bytes; n++) at[n] = (char)(value >> (8 * n));
}

static void wav_head(char *at) {
    memcpy(at, "RIFF....WAVEfmt ", 16);
    put(at + 4, (uint32_t)body_bytes - 8, 4);
    put(at + 16, 16, 4);
    put(at + 20, 1, 2);
    put(at + 22, 1, 2);
    put(at + 24, 24000, 4);
    put(at + 28, SECOND_BYTES, 4);
    put(at + 32, 2, 2);
    put(at + 34, 16, 2);
    memcpy(at + 36, "data", 4);
    put(at + 40, (uint32_t)body_bytes - WAV_HEAD, 4);
}

static void hang_up(struct connection *one) {
    close(one->fd);
    one->open = 0;
    open_count--;
}

/* Who is in a line is forgotten when it is due. */
static void forget_closed(struct connection *one) {
    if (one->open || one->in_line) return;
    free(one->unsent);
    free(one);
}

static void watch(struct connection *one, int how, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = one};
    if (epoll_ctl(polling, how, one->fd, &event)) fail("epoll_ctl");
}

/* Sends, and keeps what the system does not take. */
static void say(struct connection *one, const char *bytes, size_t length) {
    ssize_t n = 0;
    if (!one->unsent_bytes) {
        n = send(one->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN) {
            hang_up(one);
            return;
        }
        if (n < 0) n = 0;
        if ((size_t)n == length) return;
        watch(one, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
    one->unsent = realloc(one->unsent, one->unsent_bytes + length - (size_t)n);
    if (!one->unsent) fail("realloc");
    memcpy(one->unsent + one->unsent_bytes, bytes + n, length - (size_t)n);
    one->unsent_bytes += length - (size_t)n;
}

static void say_rest(struct connection *one) {
    ssize_t n = send(one->fd, one->unsent, one->unsent_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) {
        hang_up(one);
        return;
    }
    one->unsent_bytes -= (size_t)n;
    memmove(one->unsent, one->unsent + n, one->unsent_bytes);
    if (!one->unsent_bytes) watch(one, EPOLL_CTL_MOD, EPOLLIN);
}

/* One chunk, framed, from this place of the body on. */
static size_t chunk(char *into, size_t at, int64_t stamp_ns) {
    size_t size = body_bytes - at < chunk_bytes ? body_bytes - at : chunk_bytes, head = at ? 0 : WAV_HEAD;
    size_t framing = (size_t)sprintf(into, "%zx\r\n", size);
    char *body = into + framing;
    for (size_t n = 0; n < size; n++) body[n] = (char)(at + n);
    if (!at) wav_head(body);
    if (size >= head + STAMP_BYTES) {
        memcpy(body + head, STAMP, 8);
        memcpy(body + head + 8, &stamp_ns, 8);
    }
    memcpy(body + size, "\r\n", 2);
    return framing + size + 2;
}

/* What is due: the next chunk, or all of them. */
static void speak(struct connection *one) {
    static char out[MAX_BODY * 2];
    size_t length = 0;
    int64_t stamp_ns = now_ns();
    if (!one->sent_bytes)
        length = (size_t)sprintf(out, "HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nTransfer-Encoding: chunked\r\n\r\n");
    do {
        length += chunk(out + length, one->sent_bytes, stamp_ns);
        one->sent_bytes += body_bytes - one->sent_bytes < chunk_bytes ? body_bytes - one->sent_bytes : chunk_bytes;
    } while (pace <= 0 && one->sent_bytes < body_bytes);
    if (one->sent_bytes == body_bytes) {
        memcpy(out + length, "0\r\n\r\n", 5);
        length += 5;
    } else {
        one->due_ns += (int64_t)((double)chunk_bytes / SECOND_BYTES / pace * 1e9);
        join(&speaking, one);
    }
    say(one, out, length);
}

static void speak_due(struct line *line) {
    int64_t now = now_ns();
    while (line->count) {
        struct connection *one = line->members[line->first];
        if (one->due_ns > now) return;
        line->first = (line->first + 1) % MAX_CONNECTIONS;
        line->count--;
        one->in_line = 0;
        if (one->open) speak(one);
        forget_closed(one);
    }
}

static void answer(struct connection *one) {
    char told[128], count[32];
    if (!strncmp(one->head, "POST", 4)) {
        asked++;
        one->sent_bytes = 0;
        one->due_ns = now_ns() + think_ns;
        if (think_ns) join(&thinking, one);
        else speak(one);
        return;
    }
    snprintf(count, sizeof count, "%llu", asked);
    const char *what = strncmp(one->head, "GET /asked ", 11) ? "ok" : count;
    int length = snprintf(told, sizeof told, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(what), what);
    say(one, told, (size_t)length);
}

/* Whole requests, one after the other; a second one does not come before the first is answered. */
static void hear(struct connection *one) {
    ssize_t n = recv(one->fd, one->head + one->head_bytes, MAX_HEAD - one->head_bytes, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        hang_up(one);
        return;
    }
    one->head_bytes += (size_t)n;
    one->head[one->head_bytes] = 0;
    char *end = strstr(one->head, "\r\n\r\n");
    if (!end) return;
    char *field = strcasestr(one->head, "\r\ncontent-length:");
    size_t length = field && field < end ? strtoull(field + 17, NULL, 10) : 0;
    if (one->head_bytes < (size_t)(end + 4 - one->head) + length) return;
    one->head_bytes = 0;
    answer(one);
}

static void welcome(int listening) {
    int fd, on = 1;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (open_count + speaking.count + thinking.count >= MAX_CONNECTIONS) {
            close(fd);
            continue;
        }
        struct connection *one = calloc(1, sizeof *one);
        if (!one) fail("calloc");
        one->fd = fd;
        one->open = 1;
        open_count++;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(one, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static int serve_at(const char *host, int port) {
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (!inet_aton(host, &at.sin_addr)) fail(host);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listening, (struct sockaddr *)&at, sizeof at) || listen(listening, 4096)) fail("listen");
    if (epoll_ctl(polling, EPOLL_CTL_ADD, listening, &event)) fail("epoll_ctl");
    return listening;
}

static int64_t next_due_ns(void) {
    int64_t next = INT64_MAX;
    struct line *lines[] = {&thinking, &speaking};
    for (int n = 0; n < 2; n++) {
        if (!lines[n]->count) continue;
        int64_t due_ns = lines[n]->members[lines[n]->first]->due_ns;
        if (due_ns < next) next = due_ns;
    }
    return next;
}

/* Until something can be read, or something is due; to the nanosecond, unlike epoll's own time-out. */
static int wait_for(struct epoll_event *events, int room) {
    struct pollfd watched = {.fd = polling, .events = POLLIN};
    int64_t next = next_due_ns(), left_ns = next == INT64_MAX ? 1000000000LL : next - now_ns();
    if (left_ns > 0) {
        struct timespec pause = {left_ns / 1000000000LL, left_ns % 1000000000LL};
        ppoll(&watched, 1, &pause, NULL);
    }
    return epoll_wait(polling, events, room, 0);
}

int main(int count, char **words) {
    struct epoll_event events[512];
    if (count != 7) {
        fprintf(stderr, "cluster HOST PORT BYTES CHUNK_BYTES THINK_MS PACE\n");
        return 2;
    }
    body_bytes = strtoull(words[3], NULL, 10);
    chunk_bytes = strtoull(words[4], NULL, 10);
    think_ns = (int64_t)(atof(words[5]) * 1e6);
    pace = atof(words[6]);
    if (body_bytes <= WAV_HEAD || body_bytes > MAX_BODY || chunk_bytes < WAV_HEAD + STAMP_BYTES) {
        fprintf(stderr, "%d to %d bytes, in chunks of at least %d\n", WAV_HEAD + 1, MAX_BODY, WAV_HEAD + STAMP_BYTES);
        return 2;
    }
    prctl(PR_SET_TIMERSLACK, 1);
    polling = epoll_create1(0);
    int listening = serve_at(words[1], atoi(words[2]));
    for (;;) {
        int ready = wait_for(events, 512);
        for (int n = 0; n < ready; n++) {
            struct connection *one = events[n].data.ptr;
            if (!one) {
                welcome(listening);
                continue;
            }
            if (events[n].events & EPOLLOUT) say_rest(one);
            if (one->open && events[n].events & ~(unsigned)EPOLLOUT) hear(one);
            forget_closed(one);
        }
        speak_due(&thinking);
        speak_due(&speaking);
    }
}
