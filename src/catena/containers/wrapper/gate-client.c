/*
 * catena-runc: an OCI runtime that asks the gate before it starts anything.
 *
 * It stands where runc is expected and hands every call on to the real runtime. What can start a
 * process (create, run, exec, restore) goes through the gate first; `delete` tells it, and goes on
 * without one. What cannot start one goes straight on. Whatever is not known is refused, and so is
 * `--criu`, which names a program to run.
 *
 * catena-runc itself is one line that names this program, the real runtime and the gate's socket:
 *
 *     #!/usr/lib/catena/gate-client /usr/sbin/runc /run/catena-gate/gate.sock
 *
 * The kernel hands both names over as one word, then that file's path, then the caller's words.
 * What the gate is asked and answers is described in protocol.py, which holds the same constants.
 *
 * It is C because it runs at every start of a container: Python's own start takes longer than all
 * the rest (docs/adr/0015). It keeps no state, allocates twice, and ends in an exec or an exit.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAGIC "catena-gate/1"
#define MAX_FRAME ((size_t)1 << 20)
#define MAX_MESSAGE 2048
/* Longer than the gate's own limit, and shorter than a kubelet's patience (two minutes). */
#define SECONDS 115
#define DELETE_SECONDS 5

enum { OWN_WORDS = 3 }; /* this program, its settings, the path of catena-runc */

static const char *runtime;
static const char *gate;
static const char *log_path;
static bool log_in_json;

static const char *const STARTING[] = {"create", "run", "exec", "restore", "delete", NULL};
static const char *const PASSED_ON[] = {"checkpoint", "events", "features", "help",   "kill",
                                        "list",       "pause",  "ps",       "resume", "spec",
                                        "start",      "state",  "update",   NULL};
static const char *const ALONE[] = {"--version", "-v", "--help", "-h", NULL};
static const char *const FLAGS[] = {"--debug", "--systemd-cgroup", NULL};
static const char *const VALUED[] = {"--root", "--rootless", "--log", "--log-format", NULL};

static bool is_one_of(const char *word, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(word, *words) == 0)
            return true;
    return false;
}

/* Refusals ----------------------------------------------------------------------------------- */

/* Text as the inside of a JSON string, in printable ASCII; what does not fit is cut. */
static void escape(char *out, size_t room, const char *text)
{
    size_t used = 0;
    for (; *text && used + 7 < room; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\')
            used += (size_t)snprintf(out + used, room - used, "\\%c", byte);
        else if (byte < 0x20)
            used += (size_t)snprintf(out + used, room - used, "\\u%04x", byte);
        else
            out[used++] = byte < 0x7f ? (char)byte : '?';
    }
    out[used] = '\0';
}

/* One line in the log that the real runtime would write to; engines show its last error. */
static void append_to_log(const char *message)
{
    char escaped[2 * MAX_MESSAGE], stamp[32], line[sizeof escaped + 128];
    time_t now = time(NULL);
    struct tm parts;
    if (!gmtime_r(&now, &parts) || !strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &parts))
        stamp[0] = '\0';
    escape(escaped, sizeof escaped, message);
    const char *form = log_in_json ? "{\"level\":\"error\",\"msg\":\"%2$s\",\"time\":\"%1$s\"}\n"
                                   : "time=\"%1$s\" level=error msg=\"%2$s\"\n";
    int size = snprintf(line, sizeof line, form, stamp, escaped);
    int file = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0 || write(file, line, (size_t)size) != size)
        fprintf(stderr, "catena-runc: cannot write %s: %s\n", log_path, strerror(errno));
}

/* Say why nothing starts, as the real runtime says why something failed. */
static _Noreturn void refuse(const char *code, const char *message, const char *detail)
{
    char text[MAX_MESSAGE];
    snprintf(text, sizeof text, "catena refused: %.1600s%s%.200s [%.64s]", message,
             *detail ? ": " : "", detail, code);
    if (log_path && *log_path)
        append_to_log(text);
    fprintf(stderr, "%s\n", text);
    exit(1);
}

static _Noreturn void misused(const char *message)
{
    fprintf(stderr, "catena-runc: %s [unknown-command]\n", message);
    exit(1);
}

static _Noreturn void become(char **words)
{
    execv(runtime, words);
    refuse("runtime-missing", "cannot run the real runtime", strerror(errno));
}

/* The gate ----------------------------------------------------------------------------------- */

static _Noreturn void unreachable(const char *detail)
{
    refuse("gate-unreachable", "the gate does not answer", detail);
}

/* What talks to the gate returns NULL, or what went wrong: `delete` goes on all the same. */
static const char *receive(int channel, char *data, size_t size)
{
    while (size) {
        ssize_t got = recv(channel, data, size, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got ? strerror(errno) : "it closed the connection";
        data += got;
        size -= (size_t)got;
    }
    return NULL;
}

/* A gate that refuses at once does not read the question; its answer says why. */
static const char *send_all(int channel, const char *data, size_t size)
{
    while (size) {
        ssize_t sent = send(channel, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EPIPE || errno == ECONNRESET ? NULL : strerror(errno);
        data += sent;
        size -= (size_t)sent;
    }
    return NULL;
}

static const char *connected(int channel, time_t seconds)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = seconds};
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (strlen(gate) >= sizeof address.sun_path)
        return "its socket's path is too long";
    memcpy(address.sun_path, gate, strlen(gate) + 1);
    if (channel < 0 || setsockopt(channel, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) ||
        setsockopt(channel, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) ||
        connect(channel, (struct sockaddr *)&address, sizeof address) ||
        getsockopt(channel, SOL_SOCKET, SO_PEERCRED, &peer, &size))
        return strerror(errno);
    return peer.uid == 0 ? NULL : "it is not root's";
}

/* Put `word` behind what is there, with a NUL between the two. */
static bool add(char *request, size_t *used, const char *word)
{
    size_t size = strlen(word) + 1;
    if (size > MAX_FRAME - *used)
        return false;
    memcpy(request + *used, word, size);
    *used += size;
    return true;
}

/* The question: its length (big-endian), then its fields. False if it is too long. */
static bool question(char *request, size_t *size, char **words)
{
    char folder[PATH_MAX];
    size_t used = 4;
    if (!getcwd(folder, sizeof folder))
        folder[0] = '\0'; /* the gate refuses it */
    bool fits = add(request, &used, MAGIC) && add(request, &used, folder) &&
                add(request, &used, runtime);
    for (; fits && *words; words++)
        fits = add(request, &used, *words);
    used--; /* the NUL behind the last field */
    for (int byte = 0; byte < 4; byte++)
        request[byte] = (char)((used - 4) >> (24 - 8 * byte));
    *size = used;
    return fits;
}

/* One frame there, one frame back, ended by a NUL; `size` becomes its length. */
static const char *exchange(char **words, time_t seconds, char *frame, size_t *size)
{
    unsigned char length[4];
    const char *fault;
    if (!question(frame, size, words))
        return "the command line is too long";
    int channel = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if ((fault = connected(channel, seconds)) || (fault = send_all(channel, frame, *size)) ||
        (fault = receive(channel, (char *)length, sizeof length)))
        return fault;
    *size = (size_t)length[0] << 24 | (size_t)length[1] << 16 | (size_t)length[2] << 8 | length[3];
    if (*size > MAX_FRAME)
        return "its answer is too long";
    fault = receive(channel, frame, *size);
    frame[*size] = '\0';
    return fault;
}

/* The fields of a frame as a list of words that ends with NULL; their number in `count`. */
static char **fields(char *frame, size_t size, size_t *count)
{
    *count = 1;
    for (size_t at = 0; at < size; at++)
        *count += frame[at] == '\0';
    char **words = calloc(*count + 1, sizeof *words);
    if (!words)
        unreachable("no memory is left");
    for (size_t word = 0; word < *count; word++, frame += strlen(frame) + 1)
        words[word] = frame;
    return words;
}

/* Run what the gate allows, or say why it does not; returns why it could not be asked. */
static const char *ask(char **words, bool starts)
{
    static char frame[MAX_FRAME + 5]; /* the length before a question, the NUL behind an answer */
    size_t size, count;
    const char *fault = exchange(words, starts ? SECONDS : DELETE_SECONDS, frame, &size);
    if (fault)
        return fault;
    char **answer = fields(frame, size, &count);
    if (count >= 2 && strcmp(answer[0], "allow") == 0 && strcmp(answer[1], runtime) == 0)
        become(answer + 1);
    if (count == 3 && strcmp(answer[0], "deny") == 0 && starts)
        refuse(answer[1], answer[2], "");
    return "its answer makes no sense";
}

/* The command line --------------------------------------------------------------------------- */

/* Note a global option's value if it says where errors are logged. */
static void note(const char *option, size_t length, const char *value)
{
    if (length == strlen("--log") && strncmp(option, "--log", length) == 0)
        log_path = value;
    if (length == strlen("--log-format") && strncmp(option, "--log-format", length) == 0)
        log_in_json = strcmp(value, "json") == 0;
}

/* Behind the global options, or NULL if all words are options; refuses one that is not known. */
static char **find_verb(char **words)
{
    char **word = words;
    for (; *word && **word == '-' && !is_one_of(*word, ALONE); word++) {
        const char *equals = strchr(*word, '=');
        char name[16] = "";
        if (equals && (size_t)(equals - *word) < sizeof name)
            memcpy(name, *word, (size_t)(equals - *word));
        if (is_one_of(name, VALUED)) {
            note(*word, strlen(name), equals + 1);
        } else if (is_one_of(*word, VALUED)) {
            if (!word[1])
                misused("an option lacks its value");
            note(*word, strlen(*word), word[1]);
            word++;
        } else if (!is_one_of(*word, FLAGS)) {
            misused("unknown global option or command");
        }
    }
    return *word ? word : NULL;
}

/* Split "RUNTIME GATE"; both are plain absolute paths, `catena container install` sees to it. */
static bool read_settings(char *settings)
{
    char *space = strchr(settings, ' ');
    if (!space || strchr(space + 1, ' '))
        return false;
    *space = '\0';
    runtime = settings;
    gate = space + 1;
    return *runtime == '/' && *gate == '/';
}

int main(int count, char **words)
{
    if (count < OWN_WORDS || !read_settings(words[1]))
        misused("it is started by the line at the head of catena-runc");
    char **given = words + OWN_WORDS - 1; /* the real runtime's name goes before the words */
    char **verb = find_verb(given + 1);
    given[0] = (char *)runtime;
    if (!verb || is_one_of(*verb, PASSED_ON))
        become(given);
    if (is_one_of(*verb, ALONE)) {
        if (verb[1])
            misused("this option must stand alone");
        become(given);
    }
    if (!is_one_of(*verb, STARTING))
        misused("unknown global option or command");
    bool starts = strcmp(*verb, "delete") != 0;
    const char *fault = ask(given + 1, starts);
    if (starts)
        unreachable(fault);
    become(given);
}
