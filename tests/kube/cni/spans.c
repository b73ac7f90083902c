/* What the plugin's reading of JSON finds, asked by a test: inputs as "LENGTH\n" and so many bytes, answers a line each. */
#define FUZZING
#include "../../../daemonset/cni/headgate-cni.c"

static void tell(const char *name, const char *text, struct span found)
{
	printf(" %s=%ld:%zu", name, found.length ? (long)(found.at - text) : -1L, found.length);
}

int main(void)
{
	size_t length;

	while (scanf("%zu%*1[\n]", &length) == 1) {
		char *text = malloc(length + 1); /* just as long as it is: one byte further is a fault */
		struct config config;

		if (!text || fread(text, 1, length, stdin) != length)
			return 2;
		if (!read_config(text = realloc(text, length ? length : 1), length, &config)) {
			printf("none\n");
		} else {
			printf("config");
			tell("version", text, config.version);
			tell("previous", text, config.previous);
			printf(" excluded=%d\n", lists(config.excluded, argument("A=b;NS=kube-system;", "NS")));
		}
		fflush(stdout);
		free(text);
	}
	return 0;
}
