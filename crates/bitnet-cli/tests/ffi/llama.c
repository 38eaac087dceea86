// A library with the interface of llama.cpp, which computes next to nothing: the logits after a token are greatest at
// the token one higher. Macros make it fail in the ways that real ones do.
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef VOCABULARY
#define VOCABULARY 16
#endif
#define SEQUENCES 4
#define CONTEXT 64

#ifndef VERSION
#define VERSION "1.0.0"
#endif

// As of build 6431.
struct llama_model_params {
    void *devices, *overrides;
    int32_t n_gpu_layers, split_mode, main_gpu;
    const float *tensor_split;
    void *progress, *progress_data, *kv_overrides;
    bool vocab_only, use_mmap, use_mlock, check_tensors, use_extra_bufts;
#ifdef OTHER_MODEL
    int64_t more[4];
#endif
};

struct llama_context_params {
    uint32_t n_ctx, n_batch, n_ubatch, n_seq_max;
    int32_t n_threads, n_threads_batch, rope_scaling_type, pooling_type, attention_type, flash_attn_type;
    float rope_freq_base, rope_freq_scale, yarn[4];
    uint32_t yarn_orig_ctx;
    float defrag_thold;
    void *cb_eval, *cb_eval_user_data;
    int32_t type_k, type_v;
    void *abort_callback, *abort_callback_data;
    bool embeddings, offload_kqv, no_perf, op_offload, swa_full, kv_unified;
#ifdef OTHER_CONTEXT
    int32_t more;
#endif
};

struct llama_batch {
    int32_t n_tokens, *token;
    float *embd;
    int32_t *pos, *n_seq_id, **seq_id;
    int8_t *logits;
};

struct model { int layers; };
struct context {
    struct llama_context_params params;
    int32_t tokens[SEQUENCES][CONTEXT];
    int length[SEQUENCES], threads;
    float logits[CONTEXT][VOCABULARY];
};

#ifdef READ_STDIN
__attribute__((constructor)) static void take(void) {
    char bytes[64];
    if (read(0, bytes, sizeof bytes) != 0)
        abort();
}
#endif
#ifdef SLOW
__attribute__((constructor)) static void slow(void) { usleep(300 * 1000); }
#endif
#ifdef HANG_ON_OPEN
__attribute__((constructor)) static void hang(void) { for (;;) pause(); }
#endif
#ifdef ABORT_ON_OPEN
__attribute__((constructor)) static void stop(void) {
    fprintf(stderr, "GGML_ASSERT(opened) failed\n");
    abort();
}
#endif

#ifndef NO_VERSION
const char *llama_version(void) { return VERSION; }
#endif

void llama_backend_init(void) {
    // Wherever it prints, answers must come through.
    printf("llama: this goes to standard output\n");
    fflush(stdout);
}

struct llama_model_params llama_model_default_params(void) {
    struct llama_model_params p;
    memset(&p, 0, sizeof p);
    p.n_gpu_layers = 999;
    p.split_mode = 1;
    p.use_mmap = true;
    p.use_extra_bufts = true;
    return p;
}

struct llama_context_params llama_context_default_params(void) {
    struct llama_context_params p;
    memset(&p, 0, sizeof p);
    p.n_ctx = 512;
    p.n_batch = 2048;
    p.n_ubatch = 512;
    p.n_seq_max = 1;
    p.n_threads = p.n_threads_batch = 4;
    p.flash_attn_type = p.rope_scaling_type = p.pooling_type = p.attention_type = -1;
    p.type_k = p.type_v = 1;
    p.offload_kqv = p.no_perf = p.op_offload = true;
    return p;
}

void *llama_model_load_from_file(const char *path, struct llama_model_params params) {
    if (params.n_gpu_layers != 0 || params.split_mode != 1 || !params.use_mmap) {
        fprintf(stderr, "the parameters of the model are not what they should be\n");
        return NULL;
    }
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "llama_model_load: cannot open %s\n", path);
        return NULL;
    }
    fclose(file);
    return calloc(1, sizeof(struct model));
}

void llama_model_free(void *model) { free(model); }
void *llama_model_get_vocab(void *model) { return model; }
int32_t llama_vocab_n_tokens(const void *vocab) { (void)vocab; return VOCABULARY; }

int32_t llama_model_desc(const void *model, char *text, size_t size) {
    (void)model;
    return snprintf(text, size, "a model of %d tokens", VOCABULARY);
}

void *llama_init_from_model(void *model, struct llama_context_params params) {
    (void)model;
    if (params.n_threads != 4 || params.flash_attn_type != 0 || params.n_ctx > CONTEXT * SEQUENCES)
        return NULL;
    struct context *c = calloc(1, sizeof *c);
    c->params = params;
    return c;
}

void llama_free(void *context) { free(context); }
uint32_t llama_n_ctx(const void *context) { return ((const struct context *)context)->params.n_ctx; }
void llama_set_n_threads(void *context, int32_t n, int32_t m) { ((struct context *)context)->threads = n + m; }

int32_t llama_tokenize(const void *vocab, const char *text, int32_t length, int32_t *tokens, int32_t room, bool special,
                       bool parse) {
    (void)vocab;
    (void)parse;
    int32_t n = 0;
    if (length + 1 > room)
        return -(length + 1);
    if (special)
        tokens[n++] = 0;
    for (int32_t i = 0; i < length; i++)
        tokens[n++] = (unsigned char)text[i] % VOCABULARY;
    return n;
}

#ifndef NO_DECODE
int32_t llama_decode(void *context, struct llama_batch batch) {
    struct context *c = context;
#ifdef ABORT
    fprintf(stderr, "GGML_ASSERT(n_tokens == 0) failed\n");
    abort();
#endif
#ifdef FORK
    // Somebody else keeps what it had open.
    if (fork() == 0) {
        sleep(70);
        _exit(0);
    }
    abort();
#endif
#ifdef ABORT_ONCE
    FILE *once = fopen(ABORT_ONCE, "rb");
    if (!once) {
        fclose(fopen(ABORT_ONCE, "wb"));
        abort();
    }
    fclose(once);
#endif
#ifdef SLEEP
    usleep(300 * 1000);
#endif
#ifdef CRASH
    *(volatile int *)0 = 1;
#endif
#ifdef EXIT
    exit(3);
#endif
#ifdef HANG
    fprintf(stderr, "thinking\n");
    for (;;) pause();
#endif
    for (int i = 0; i < batch.n_tokens; i++) {
        int s = batch.seq_id[i][0];
        if (batch.n_seq_id[i] != 1 || s >= SEQUENCES || batch.pos[i] != c->length[s])
            return -1;
        if (c->length[s] >= CONTEXT)
            return 1;
        c->tokens[s][c->length[s]++] = batch.token[i];
        for (int t = 0; t < VOCABULARY; t++)
            c->logits[i][t] = batch.logits[i] ? (float)(t == (batch.token[i] + 1) % VOCABULARY) + s * 0.25f : 0.0f;
    }
    return 0;
}
#endif

float *llama_get_logits_ith(void *context, int32_t i) { return ((struct context *)context)->logits[i]; }
void *llama_get_memory(void *context) { return context; }

bool llama_memory_seq_rm(void *memory, int32_t s, int32_t from, int32_t to) {
    struct context *c = memory;
    if (to != -1 || from < 0)
        return false;
    if (c->length[s] > from)
        c->length[s] = from;
    return true;
}
