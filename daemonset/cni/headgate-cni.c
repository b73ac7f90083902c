/*
 * headgate-cni: the chained CNI plugin (CNI specification 1.1). It decides nothing: the node's agent is told what the
 * runtime told us, and what it answers is printed. Only when nobody answers it has to choose, and then a pod does not
 * start: traffic that was never steered would be nobody's to notice.
 *
 * To the agent:  lines CNI_COMMAND=… CNI_CONTAINERID=… CNI_NETNS=… CNI_IFNAME=… CNI_ARGS=…, an empty line, stdin as it
 *                came; then the writing end is closed.
 * From it:       "0", or "1" and a CNI error object; then the end.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/time.h>

#define CONFIG_LIMIT (1 << 20) /* a conflist is some KB, prevResult of a pod with many interfaces too */
#define ANSWER_LIMIT (1 << 16)
#define DEPTH_LIMIT 64
#define PATIENCE_S 7 /* the agent answers within 5 s, in words that say why it could not */
#define TRY_AGAIN_LATER 11 /* CNI specification, section Error */
#define BAD_CONFIG 7
#define NOT_AVAILABLE 50
#define DEFAULT_SOCKET "/var/run/headgate/cni.sock"

struct span {
	const char *at;
	size_t length;
};

struct config {
	struct span version, previous, excluded, socket;
};
/* ── JSON, as far as it is needed: where values begin and end ──────────────────────────────────────────────────── */
static const char *blank(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
		p++;
	return p;
}

/* Behind the closing quote; NULL when there is none. */
static const char *text_end(const char *p, const char *end)
{
	for (p++; p < end; p++) {
		if (*p == '\\')
			p++;
		else if (*p == '"')
			return p + 1;
	}
	return NULL;
}

static const char *value_end(const char *p, const char *end, int depth);

/* Of an object or array whose opening bracket is at p. */
static const char *nested_end(const char *p, const char *end, int depth)
{
	const bool object = *p == '{';
	const char close = object ? '}' : ']';

	p = blank(p + 1, end);
	if (p < end && *p == close)
		return p + 1;
	while (p < end) {
		if (object) {
			if (*p != '"' || !(p = text_end(p, end)))
				return NULL;
			p = blank(p, end);
			if (p >= end || *p != ':')
				return NULL;
			p = blank(p + 1, end);
		}
		if (!(p = value_end(p, end, depth + 1)))
			return NULL;
		p = blank(p, end);
		if (p < end && *p == close)
			return p + 1;
		if (p >= end || *p != ',')
			return NULL;
		p = blank(p + 1, end);
	}
	return NULL;
}

static const char *value_end(const char *p, const char *end, int depth)
{
	const char *begin = p;

	if (p >= end || depth > DEPTH_LIMIT)
		return NULL;
	if (*p == '"')
		return text_end(p, end);
	if (*p == '{' || *p == '[')
		return nested_end(p, end, depth);
	while (p < end && *p > ' ' && !strchr(",]}:\"{[", *p))
		p++;
	return p > begin ? p : NULL;
}

static bool same(struct span one, struct span other)
{
	return one.length == other.length && memcmp(one.at, other.at, one.length) == 0;
}

static struct span inside(struct span quoted)
{
	if (quoted.length < 2 || *quoted.at != '"')
		return (struct span){0};
	return (struct span){quoted.at + 1, quoted.length - 2};
}

/* The members of the configuration that we need; false when it is no JSON object. */
static bool read_config(const char *text, size_t length, struct config *found)
{
	const char *end = text + length, *p = blank(text, end);
	const struct { const char *name; struct span *into; } members[] = {
		{"cniVersion", &found->version}, {"prevResult", &found->previous},
		{"excludeNamespaces", &found->excluded}, {"socket", &found->socket},
	};

	*found = (struct config){0};
	if (p >= end || *p != '{')
		return false;
	p = blank(p + 1, end);
	while (p < end && *p == '"') {
		const char *after = text_end(p, end);
		struct span key, value;

		if (!after)
			return false;
		key = inside((struct span){p, (size_t)(after - p)});
		p = blank(after, end);
		if (p >= end || *p != ':')
			return false;
		value.at = blank(p + 1, end);
		if (!(after = value_end(value.at, end, 0)))
			return false;
		value.length = (size_t)(after - value.at);
		for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++)
			if (same(key, (struct span){members[i].name, strlen(members[i].name)}))
				*members[i].into = value;
		p = blank(after, end);
		if (p < end && *p == '}')
			return blank(p + 1, end) == end;
		if (p >= end || *p != ',')
			return false;
		p = blank(p + 1, end);
	}
	return p < end && *p == '}' && blank(p + 1, end) == end;
}

/* Whether the array has this text among its own elements. */
static bool lists(struct span array, struct span word)
{
	const char *end = array.at + array.length, *p;

	if (!array.length || *array.at != '[' || !word.length)
		return false;
	for (p = blank(array.at + 1, end); p < end && *p != ']'; p = blank(p, end)) {
		const char *after = value_end(p, end, 0);

		if (!after)
			return false;
		if (same(inside((struct span){p, (size_t)(after - p)}), word))
			return true;
		p = blank(after, end);
		if (p < end && *p == ',')
			p++;
	}
	return false;
}

/* Of CNI_ARGS: KEY=VALUE;KEY=VALUE */
static struct span argument(const char *arguments, const char *key)
{
	const size_t length = strlen(key);

	while (*arguments) {
		const size_t whole = strcspn(arguments, ";");

		if (whole > length && arguments[length] == '=' && memcmp(arguments, key, length) == 0)
			return (struct span){arguments + length + 1, whole - length - 1};
		arguments += whole + (arguments[whole] == ';');
	}
	return (struct span){0};
}

#ifndef FUZZING
/* ── What the runtime hears ────────────────────────────────────────────────────────────────────────────────────── */
static struct span version_or_default(struct span version)
{
	version = inside(version);
	return version.length && strspn(version.at, "0123456789.") >= version.length ? version : (struct span){"1.0.0", 5};
}

/* A CNI error object. `words` hold neither quotes nor backslashes: they are ours, errno's, or a path that has none. */
static int fail(struct span version, int code, const char *words, ...)
{
	va_list rest;

	version = version_or_default(version);
	printf("{\"cniVersion\":\"%.*s\",\"code\":%d,\"msg\":\"headgate: ", (int)version.length, version.at, code);
	va_start(rest, words);
	vprintf(words, rest);
	va_end(rest);
	printf("\"}\n");
	return 1;
}

/* A chained plugin that adds nothing gives on what the one before it gave. */
static int give_on(const struct config *config)
{
	if (!config->previous.length)
		return fail(config->version, BAD_CONFIG, "no prevResult: put this plugin behind another one in plugins");
	fwrite(config->previous.at, 1, config->previous.length, stdout);
	return fflush(stdout) ? 1 : 0;
}

/* ── The agent ─────────────────────────────────────────────────────────────────────────────────────────────────── */
static const char *told(const char *name)
{
	const char *value = getenv(name);

	return value && !strchr(value, '\n') ? value : "";
}

/* The answer's length; 0 when there is none in time (errno). */
static size_t ask(const struct sockaddr_un *at, const char *config, size_t length, char *answer)
{
	const struct timeval patience = {.tv_sec = PATIENCE_S};
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	FILE *agent;
	size_t got;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) ||
	    connect(fd, (const struct sockaddr *)at, sizeof(*at)) || !(agent = fdopen(fd, "r+")))
		return 0;
	fprintf(agent, "CNI_COMMAND=%s\nCNI_CONTAINERID=%s\nCNI_NETNS=%s\nCNI_IFNAME=%s\nCNI_ARGS=%s\n\n",
		told("CNI_COMMAND"), told("CNI_CONTAINERID"), told("CNI_NETNS"), told("CNI_IFNAME"), told("CNI_ARGS"));
	fwrite(config, 1, length, agent);
	if (fflush(agent) || shutdown(fd, SHUT_WR))
		return 0;
	errno = ECONNRESET;
	got = fread(answer, 1, ANSWER_LIMIT, agent);
	return ferror(agent) ? 0 : got;
}

static int act(const char *command, const struct config *config, const char *text, size_t length)
{
	static char answer[ANSWER_LIMIT];
	struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = DEFAULT_SOCKET};
	const struct span wanted = inside(config->socket);
	size_t got;

	if (wanted.length && wanted.length < sizeof(at.sun_path))
		snprintf(at.sun_path, sizeof(at.sun_path), "%.*s", (int)wanted.length, wanted.at);
	got = ask(&at, text, length, answer);
	if (got > 0 && answer[0] == '0')
		return strcmp(command, "ADD") == 0 ? give_on(config) : 0;
	/* A pod that goes must be able to, whatever is answered; its namespace takes what we made in it along. */
	if (strcmp(command, "DEL") == 0 || (got <= 1 && strcmp(command, "GC") == 0))
		return 0;
	if (got > 1) {
		fwrite(answer + 1, 1, got - 1, stdout);
		return 1;
	}
	return fail(config->version, strcmp(command, "STATUS") == 0 ? NOT_AVAILABLE : TRY_AGAIN_LATER,
		    "the agent of this node does not answer at %s (%s): no pod outside of excludeNamespaces starts "
		    "before it does, or its traffic would bypass the mesh; see the agent's pod and its log",
		    at.sun_path, strerror(errno));
}

int main(void)
{
	static char text[CONFIG_LIMIT];
	const char *command = getenv("CNI_COMMAND"), *arguments = getenv("CNI_ARGS");
	struct config config = {0};
	size_t length;

	signal(SIGPIPE, SIG_IGN); /* an agent that ends while it is told is one that does not answer */
	if (!command)
		return fail(config.version, 4, "CNI_COMMAND is not set: this program is run by a container runtime");
	if (strcmp(command, "VERSION") == 0) {
		puts("{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}");
		return 0;
	}
	length = fread(text, 1, sizeof(text), stdin);
	if (length == sizeof(text) || !read_config(text, length, &config))
		return fail(config.version, BAD_CONFIG, "the configuration on stdin is no JSON object below 1 MiB");
	if (lists(config.excluded, argument(arguments ? arguments : "", "K8S_POD_NAMESPACE")))
		return strcmp(command, "ADD") == 0 ? give_on(&config) : 0;
	return act(command, &config, text, length);
}
#endif
