/* A load generator: requests leave when the schedule says, whether or not earlier answers are there.

   openloop PORT CONNECTIONS RATE SECONDS WARMUP_SECONDS SEED SPIN FRESH REQUESTS_FILE

   Latency is counted from the scheduled time to the answer's last byte, and to the first one of its body, so that a server
   which stalls is not spared the requests that it held up (coordinated omission). RATE is of exponentially spaced requests a second; 0: closed loop, each
   connection asks again as soon as it is answered. SPIN 1: never sleeps, for a core of its own; 0: sleeps until something
   is due, for a core that others need too. FRESH 1: a new connection for each request. REQUESTS_FILE is as bench/questions.py writes it. One line of JSON on
   stdout; histograms are pairs of a bucket's upper bound in nanoseconds (0.8 % wide) and a count. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
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

#define MAX_CONNECTIONS 4096
#define MAX_REQUESTS 65536
#define MAX_HEAD 16384
#define BUCKETS 8192
#define MARK "0123456789abcdef"
#define MARK_BYTES 16
/* How long answers are waited for after the last request. */
#define GRACE_NS 5000000000LL

/* mark: where MARK is in it, if it is: a number that differs every time takes its place, also from one SEED to another. */
struct request {
    char *bytes, *mark;
    uint32_t length;
};

/* body_left: of the body, or of the chunk under way. */
struct connection {
    int fd, asked, head_read, heard;
    enum { BY_LENGTH, CHUNK_SIZE, CHUNK, CHUNK_END, LAST_END } framing;
    int64_t due_ns, idle_since_ns;
    size_t head_bytes, body_left;
    char head[MAX_HEAD + 1];
};

static struct connection connections[MAX_CONNECTIONS];
static int idle[MAX_CONNECTIONS], idle_first, idle_count;
static struct request requests[MAX_REQUESTS];
static int request_count, connection_count, port, polling, fresh;
static uint64_t latency[BUCKETS], first[BUCKETS], lag[BUCKETS];
static uint64_t answered, failed, received_bytes, sent, numbers_from;
static int64_t counted_from_ns, counted_until_ns;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* 128 buckets for each power of two. */
static int bucket(int64_t ns) {
    if (ns < 256) return ns < 0 ? 0 : (int)ns;
    int shift = 63 - __builtin_clzll((unsigned long long)ns) - 7;
    int at = 256 + (shift - 1) * 128 + (int)((ns >> shift) - 128);
    return at < BUCKETS ? at : BUCKETS - 1;
}

static int64_t upper_ns(int at) {
    if (at < 256) return at;
    int shift = (at - 256) / 128 + 1;
    return ((((at - 256) % 128 + 128LL) + 1) << shift) - 1;
}

static void print_histogram(const char *name, const uint64_t *counts) {
    const char *comma = "";
    printf("\"%s\": [", name);
    for (int at = 0; at < BUCKETS; at++) {
        if (!counts[at]) continue;
        printf("%s[%lld, %llu]", comma, (long long)upper_ns(at), (unsigned long long)counts[at]);
        comma = ", ";
    }
    printf("]");
}

static void load(const char *path) {
    FILE *file = fopen(path, "rb");
    uint32_t length;
    if (!file) fail(path);
    while (request_count < MAX_REQUESTS && fread(&length, sizeof length, 1, file) == 1) {
        struct request *one = &requests[request_count++];
        one->bytes = malloc(length);
        one->length = length;
        if (!one->bytes || fread(one->bytes, 1, length, file) != length) fail(path);
        one->mark = memmem(one->bytes, length, MARK, MARK_BYTES);
    }
    fclose(file);
    if (!request_count) {
        fprintf(stderr, "%s: no requests\n", path);
        exit(1);
    }
}

static void rest(struct connection *one) {
    one->asked = 0;
    one->idle_since_ns = now_ns();
    idle[(idle_first + idle_count++) % MAX_CONNECTIONS] = (int)(one - connections);
}

static void dial(struct connection *one) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)(one - connections)};
    int on = 1;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    one->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (one->fd < 0 || connect(one->fd, (struct sockaddr *)&at, sizeof at)) fail("connect");
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (epoll_ctl(polling, EPOLL_CTL_ADD, one->fd, &event)) fail("epoll_ctl");
}

static int counts(const struct connection *one) {
    return one->due_ns >= counted_from_ns && one->due_ns < counted_until_ns;
}

/* What comes on this connection can't be followed any more. */
static void give_up(struct connection *one) {
    close(one->fd);
    dial(one);
    if (!one->asked) return;
    if (counts(one)) failed++;
    rest(one);
}

static void ask(int64_t due_ns) {
    struct connection *one = &connections[idle[idle_first]];
    struct request *request = &requests[sent++ % (uint64_t)request_count];
    char number[MARK_BYTES + 1];
    idle_first = (idle_first + 1) % MAX_CONNECTIONS;
    idle_count--;
    if (fresh) {
        close(one->fd);
        dial(one);
    }
    one->asked = 1;
    one->due_ns = due_ns;
    one->head_read = one->heard = 0;
    one->head_bytes = one->body_left = 0;
    if (request->mark) {
        snprintf(number, sizeof number, "%016llx", (unsigned long long)(numbers_from + sent));
        memcpy(request->mark, number, MARK_BYTES);
    }
    int64_t could_ns = due_ns > one->idle_since_ns ? due_ns : one->idle_since_ns;
    if (counts(one)) lag[bucket(now_ns() - could_ns)]++;
    if (send(one->fd, request->bytes, request->length, MSG_NOSIGNAL) != (ssize_t)request->length) give_up(one);
}

/* The head, once it is whole: -1 if it is no 200 with a length or chunks. */
static int read_head(struct connection *one, const char *end) {
    char *field;
    one->head_read = 1;
    one->head[one->head_bytes] = 0;
    if (strncmp(one->head, "HTTP/1.1 200", 12)) return -1;
    field = strcasestr(one->head, "\r\ncontent-length:");
    one->framing = field && field < end ? BY_LENGTH : CHUNK_SIZE;
    one->body_left = one->framing == BY_LENGTH ? strtoull(field + 17, NULL, 10) : 0;
    if (one->framing == BY_LENGTH) return 0;
    field = strcasestr(one->head, "\r\ntransfer-encoding: chunked\r\n");
    return field && field < end ? 0 : -1;
}

static void hear(struct connection *one) {
    if (one->heard) return;
    one->heard = 1;
    if (counts(one)) first[bucket(now_ns() - one->due_ns)]++;
}

/* A line of the framing ends: what follows it. 1: the answer has ended. */
static int line_ended(struct connection *one) {
    if (one->framing == LAST_END) return 1;
    if (one->framing == CHUNK_END) one->framing = CHUNK_SIZE;
    else one->framing = one->body_left ? CHUNK : LAST_END;
    return 0;
}

/* More of the body. 1: it has ended; -1: it can't be followed. */
static int read_body(struct connection *one, const char *at, size_t left) {
    if (one->framing == BY_LENGTH && !one->body_left) return left ? -1 : 1;
    while (left) {
        if (one->framing == BY_LENGTH || one->framing == CHUNK) {
            size_t taken = left < one->body_left ? left : one->body_left;
            hear(one);
            one->body_left -= taken;
            at += taken;
            left -= taken;
            if (one->body_left) return 0;
            if (one->framing == BY_LENGTH) return left ? -1 : 1;
            one->framing = CHUNK_END;
            continue;
        }
        char c = *at++;
        left--;
        if (c == '\n') {
            if (line_ended(one)) return left ? -1 : 1;
        } else if (one->framing == CHUNK_SIZE && c != '\r') {
            int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
            if (digit < 0) return -1;
            one->body_left = one->body_left * 16 + (size_t)digit;
        }
    }
    return 0;
}

static void answer_ended(struct connection *one) {
    if (counts(one)) {
        latency[bucket(now_ns() - one->due_ns)]++;
        answered++;
    }
    rest(one);
}

static void receive(struct connection *one) {
    static char got[1 << 18];
    ssize_t n = recv(one->fd, got, sizeof got, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0 || !one->asked) {
        give_up(one);
        return;
    }
    size_t body = (size_t)n;
    if (counts(one)) received_bytes += body;
    if (!one->head_read) {
        size_t room = MAX_HEAD - one->head_bytes, taken = body < room ? body : room, had = one->head_bytes;
        memcpy(one->head + had, got, taken);
        one->head_bytes += taken;
        char *end = memmem(one->head, one->head_bytes, "\r\n\r\n", 4);
        if (!end && one->head_bytes < MAX_HEAD) return;
        if (!end || read_head(one, end)) {
            give_up(one);
            return;
        }
        body -= (size_t)(end + 4 - one->head) - had;
    }
    int ended = read_body(one, got + n - body, body);
    if (ended < 0) give_up(one);
    if (ended > 0) answer_ended(one);
}

static void wait_and_receive(int64_t until_ns, int spin) {
    struct epoll_event events[256];
    int ready = epoll_wait(polling, events, 256, 0);
    int64_t left_ns = ready || spin ? 0 : until_ns - now_ns();
    if (left_ns > 0) {
        struct pollfd watched = {.fd = polling, .events = POLLIN};
        struct timespec pause = {left_ns / 1000000000LL, left_ns % 1000000000LL};
        ppoll(&watched, 1, &pause, NULL);
        ready = epoll_wait(polling, events, 256, 0);
    }
    for (int n = 0; n < ready; n++) receive(&connections[events[n].data.u32]);
}

/* Uniform in (0, 1]; xorshift64*. */
static double chance(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (double)(((*state * 2685821657736338717ULL) >> 11) + 1) / 9007199254740992.0;
}

static void run(double rate, uint64_t seed, int spin) {
    uint64_t state = seed * 0x9E3779B97F4A7C15ULL + 1;
    int64_t due_ns = now_ns(), give_up_ns = counted_until_ns + GRACE_NS;
    while (due_ns < counted_until_ns && now_ns() < give_up_ns) {
        while (idle_count && due_ns < counted_until_ns && due_ns <= now_ns()) {
            ask(due_ns);
            due_ns = rate > 0 ? due_ns + (int64_t)(-log(chance(&state)) / rate * 1e9) : now_ns();
        }
        if (rate <= 0) due_ns = now_ns();
        wait_and_receive(idle_count ? due_ns : give_up_ns, spin);
    }
    while (idle_count < connection_count && now_ns() < give_up_ns) wait_and_receive(give_up_ns, spin);
    for (int n = 0; n < connection_count; n++)
        if (connections[n].asked && counts(&connections[n])) failed++;
}

int main(int count, char **words) {
    if (count != 10) {
        fprintf(stderr, "openloop PORT CONNECTIONS RATE SECONDS WARMUP_SECONDS SEED SPIN FRESH REQUESTS_FILE\n");
        return 2;
    }
    port = atoi(words[1]);
    connection_count = atoi(words[2]);
    if (connection_count < 1 || connection_count > MAX_CONNECTIONS) {
        fprintf(stderr, "1 to %d connections\n", MAX_CONNECTIONS);
        return 2;
    }
    double rate = atof(words[3]), seconds = atof(words[4]), warmup = atof(words[5]);
    prctl(PR_SET_TIMERSLACK, 1);
    fresh = atoi(words[8]);
    numbers_from = strtoull(words[6], NULL, 10) << 40;
    load(words[9]);
    polling = epoll_create1(0);
    for (int n = 0; n < connection_count; n++) {
        dial(&connections[n]);
        rest(&connections[n]);
    }
    counted_from_ns = now_ns() + (int64_t)(warmup * 1e9);
    counted_until_ns = counted_from_ns + (int64_t)(seconds * 1e9);
    run(rate, strtoull(words[6], NULL, 10), atoi(words[7]));
    printf("{\"sent\": %llu, \"answered\": %llu, \"failed\": %llu, \"bytes\": %llu, \"seconds\": %.6f, ",
           (unsigned long long)sent, (unsigned long long)answered, (unsigned long long)failed,
           (unsigned long long)received_bytes, seconds);
    print_histogram("latency_ns", latency);
    printf(", ");
    print_histogram("first_ns", first);
    printf(", ");
    print_histogram("lag_ns", lag);
    printf("}\n");
    return 0;
}
