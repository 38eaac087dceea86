// A library with the C interface that BitNet.rs puts before bitnet.cpp, which computes next to nothing.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VOCABULARY 16

struct params { int32_t n_ctx, n_threads, seed; float rope_freq; };

void *bitnet_model_new_from_file(const char *path) { return strstr(path, "missing") ? NULL : malloc(1); }
void bitnet_model_free(void *model) { free(model); }

void *bitnet_context_new(void *model, const struct params *p) {
    (void)model;
    int32_t *context = malloc(sizeof *context);
    *context = p->n_ctx;
    return context;
}

void bitnet_context_free(void *context) { free(context); }

int bitnet_tokenize(void *model, const char *text, int add_bos, int parse_special, int32_t *out, int room) {
    (void)model;
    (void)parse_special;
    int n = 0;
    if (room < (int)strlen(text) + 1)
        return -2;
    if (add_bos)
        out[n++] = 0;
    for (; *text; text++)
        out[n++] = (unsigned char)*text % VOCABULARY;
    return n;
}

#ifndef NO_EVAL
int bitnet_eval(void *context, const int32_t *ids, int n, float *logits, int room) {
    if (n > *(int32_t *)context || room < VOCABULARY)
        return -2;
    for (int t = 0; t < VOCABULARY; t++)
        logits[t] = (float)(t == (ids[n - 1] + n) % VOCABULARY);
    return 0;
}
#endif
