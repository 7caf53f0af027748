/* Many who listen at once to what peers/cluster.c says, through whatever is between.

   listeners PORT COUNT RAMP_MS SAME SEED BUFFER_MS CHUNK_BYTES SECONDS REQUESTS_FILE

   COUNT connections are made; then, spread over RAMP_MS, each asks once: for another text each, or, with SAME 1, all for one.
   Whoever is not answered to the end within SECONDS has failed. From the stamps in the chunks it is known how long each was on
   its way. One line of JSON on stdout: delay: from a chunk's leaving to the arrival of its last byte; jitter: by how much the
   delay of a chunk differs from that of the one before (RFC 3550 §6.4.1, before smoothing); first: from the leaving of the
   first chunk to the first byte of audio. A player begins BUFFER_MS after it has the first chunk: late are the chunks that it
   does not have when it needs them, under_runs the streams that have any. */

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
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_HEAD 16384
#define BUCKETS 8192
#define MARK "0123456789abcdef"
#define MARK_BYTES 16
#define STAMP "edgebell"
#define STAMP_BYTES 16
#define WAV_HEAD 44
#define SECOND_BYTES 48000

/* body_left: of the body, or of the chunk of HTTP under way. heard_bytes: of audio and its head. */
struct listener {
    int fd, asked, over, head_read;
    enum { BY_LENGTH, CHUNK_SIZE, CHUNK, CHUNK_END, LAST_END } framing;
    size_t head_bytes, body_left, heard_bytes;
    char head[MAX_HEAD + 1], stamp[STAMP_BYTES];
    int64_t first_ns, plays_ns, last_delay_ns, stamp_ns;
    unsigned long late;
};

static struct listener *listeners;
static int count, polling, over_count;
static size_t chunk_bytes;
static int64_t buffer_ns;
static uint64_t delay[BUCKETS], jitter[BUCKETS], first[BUCKETS];
static uint64_t whole, failed, late, under_runs, heard_bytes;
static char *request, *mark;
static uint32_t request_bytes;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* 128 buckets for each power of two, as in openloop.c. */
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
    printf(", \"%s\": [", name);
    for (int at = 0; at < BUCKETS; at++) {
        if (!counts[at]) continue;
        printf("%s[%lld, %llu]", comma, (long long)upper_ns(at), (unsigned long long)counts[at]);
        comma = ", ";
    }
    printf("]");
}

static void load(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file || fread(&request_bytes, sizeof request_bytes, 1, file) != 1) fail(path);
    request = malloc(request_bytes);
    if (!request || fread(request, 1, request_bytes, file) != request_bytes) fail(path);
    fclose(file);
    mark = memmem(request, request_bytes, MARK, MARK_BYTES);
    if (!mark) {
        fprintf(stderr, "%s: nothing in it differs\n", path);
        exit(1);
    }
}

static void dial(struct listener *one, int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
    int on = 1;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    one->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (one->fd < 0 || connect(one->fd, (struct sockaddr *)&at, sizeof at)) fail("connect");
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (epoll_ctl(polling, EPOLL_CTL_ADD, one->fd, &event)) fail("epoll_ctl");
}

static void ends(struct listener *one, int well) {
    if (one->over) return;
    one->over = 1;
    over_count++;
    whole += (uint64_t)well;
    failed += (uint64_t)!well;
    late += one->late;
    under_runs += one->late > 0;
    close(one->fd);
}

static void ask(struct listener *one, unsigned long long number) {
    char text[MARK_BYTES + 1];
    snprintf(text, sizeof text, "%016llx", number);
    memcpy(mark, text, MARK_BYTES);
    one->asked = 1;
    if (send(one->fd, request, request_bytes, MSG_NOSIGNAL) != (ssize_t)request_bytes) ends(one, 0);
}

/* A chunk of the cluster's is here to its last byte. */
static void chunk_ends(struct listener *one, size_t number) {
    int64_t now = now_ns(), way_ns = now - one->stamp_ns;
    int64_t each_ns = (int64_t)((double)chunk_bytes / SECOND_BYTES * 1e9);
    delay[bucket(way_ns)]++;
    if (number) jitter[bucket(llabs(way_ns - one->last_delay_ns))]++;
    else one->plays_ns = now + buffer_ns;
    one->last_delay_ns = way_ns;
    if (now > one->plays_ns + (int64_t)number * each_ns) one->late++;
}

/* Bytes of the body, in order; only stamps and ends of chunks are looked at. */
static void hear(struct listener *one, const char *at, size_t left) {
    if (left && one->heard_bytes + left > WAV_HEAD && !one->first_ns) one->first_ns = now_ns();
    heard_bytes += left;
    while (left) {
        size_t in_chunk = one->heard_bytes % chunk_bytes, number = one->heard_bytes / chunk_bytes;
        size_t stamp_at = number ? 0 : WAV_HEAD, stamp_end = stamp_at + STAMP_BYTES, next = chunk_bytes;
        if (in_chunk < stamp_at) next = stamp_at;
        else if (in_chunk < stamp_end) next = stamp_end;
        size_t taken = next - in_chunk < left ? next - in_chunk : left;
        if (in_chunk >= stamp_at && in_chunk < stamp_end) {
            memcpy(one->stamp + (in_chunk - stamp_at), at, taken);
            if (in_chunk + taken == stamp_end) {
                if (memcmp(one->stamp, STAMP, 8)) {
                    fprintf(stderr, "no stamp in chunk %zu\n", number);
                    exit(1);
                }
                memcpy(&one->stamp_ns, one->stamp + 8, 8);
                if (!number) first[bucket(one->first_ns - one->stamp_ns)]++;
            }
        }
        one->heard_bytes += taken;
        at += taken;
        left -= taken;
        if (one->heard_bytes % chunk_bytes == 0) chunk_ends(one, number);
    }
}

static int read_head(struct listener *one, const char *end) {
    char *field;
    one->head_read = 1;
    one->head[one->head_bytes] = 0;
    if (strncmp(one->head, "HTTP/1.1 200", 12)) return -1;
    field = strcasestr(one->head, "\r\ncontent-length:");
    one->framing = field && field < end ? BY_LENGTH : CHUNK_SIZE;
    one->body_left = one->framing == BY_LENGTH ? strtoull(field + 17, NULL, 10) : 0;
    return 0;
}

static int line_ended(struct listener *one) {
    if (one->framing == LAST_END) return 1;
    if (one->framing == CHUNK_END) one->framing = CHUNK_SIZE;
    else one->framing = one->body_left ? CHUNK : LAST_END;
    return 0;
}

/* 1: the answer has ended; -1: it can't be followed. */
static int read_body(struct listener *one, const char *at, size_t left) {
    while (left) {
        if (one->framing == BY_LENGTH || one->framing == CHUNK) {
            size_t taken = left < one->body_left ? left : one->body_left;
            hear(one, at, taken);
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

static void receive(struct listener *one) {
    static char got[1 << 18];
    if (one->over) return;
    ssize_t n = recv(one->fd, got, sizeof got, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        ends(one, 0);
        return;
    }
    size_t body = (size_t)n;
    if (!one->head_read) {
        size_t room = MAX_HEAD - one->head_bytes, taken = body < room ? body : room, had = one->head_bytes;
        memcpy(one->head + had, got, taken);
        one->head_bytes += taken;
        char *end = memmem(one->head, one->head_bytes, "\r\n\r\n", 4);
        if (!end && one->head_bytes < MAX_HEAD) return;
        if (!end || read_head(one, end)) {
            ends(one, 0);
            return;
        }
        body -= (size_t)(end + 4 - one->head) - had;
    }
    int ended = read_body(one, got + n - body, body);
    if (ended) ends(one, ended > 0);
}

static void wait_and_receive(int64_t until_ns) {
    struct epoll_event events[256];
    struct pollfd watched = {.fd = polling, .events = POLLIN};
    int64_t left_ns = until_ns - now_ns();
    struct timespec pause = {left_ns / 1000000000LL, left_ns % 1000000000LL};
    if (left_ns > 0) ppoll(&watched, 1, &pause, NULL);
    int ready = epoll_wait(polling, events, 256, 0);
    for (int n = 0; n < ready; n++) receive(events[n].data.ptr);
}

int main(int words_count, char **words) {
    if (words_count != 10) {
        fprintf(stderr, "listeners PORT COUNT RAMP_MS SAME SEED BUFFER_MS CHUNK_BYTES SECONDS REQUESTS_FILE\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    count = atoi(words[2]);
    int64_t ramp_ns = (int64_t)(atof(words[3]) * 1e6);
    int same = atoi(words[4]);
    unsigned long long number = strtoull(words[5], NULL, 10) << 40;
    buffer_ns = (int64_t)(atof(words[6]) * 1e6);
    chunk_bytes = strtoull(words[7], NULL, 10);
    load(words[9]);
    prctl(PR_SET_TIMERSLACK, 1);
    listeners = calloc((size_t)count, sizeof *listeners);
    polling = epoll_create1(0);
    if (!listeners || polling < 0) fail("listeners");
    for (int n = 0; n < count; n++) dial(&listeners[n], atoi(words[1]));
    int64_t began_ns = now_ns(), end_ns = began_ns + (int64_t)(atof(words[8]) * 1e9);
    for (int n = 0; n < count; n++) {
        int64_t due_ns = began_ns + ramp_ns * n / count;
        while (ramp_ns && now_ns() < due_ns) wait_and_receive(due_ns);
        ask(&listeners[n], same ? number : number + (unsigned)n + 1);
    }
    while (over_count < count && now_ns() < end_ns) wait_and_receive(end_ns);
    for (int n = 0; n < count; n++) ends(&listeners[n], 0);
    printf("{\"whole\": %llu, \"failed\": %llu, \"late\": %llu, \"under_runs\": %llu, \"bytes\": %llu, \"seconds\": %.6f",
           (unsigned long long)whole, (unsigned long long)failed, (unsigned long long)late, (unsigned long long)under_runs,
           (unsigned long long)heard_bytes, (double)(now_ns() - began_ns) / 1e9);
    print_histogram("delay_ns", delay);
    print_histogram("jitter_ns", jitter);
    print_histogram("first_ns", first);
    printf("}\n");
    return 0;
}
