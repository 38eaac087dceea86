// Which logits are the greatest.

#define SELECT_THREADS 1024

// Numbers in the order of these: NaN is the greatest.
DEVICE u32 key_of(float x) {
    const u32 bits = __float_as_int(x);
    return x != x ? ALL : (int)bits < 0 ? ~bits : bits | 0x80000000u;
}

// Logits of a row: all, or some by their tokens.
struct Logits {
    const float *all; // [vocabulary]
    const u32 *some;  // the tokens of some, or null
    int count;        // of these, or all

    __device__ __forceinline__ int token(int i) const {
        return some ? some[i] : i;
    }
};

// Which logits of a row need to be looked at: those that may be among the greatest, if it is known which, and there is room for
// them.
struct Listed {
    const u32 *token; // [rows, most], or null
    const int *count; // [rows]
    int most;
};

DEVICE Logits logits_of(const float *logits, int vocabulary, const Listed &listed, int row) {
    const bool some = listed.token && listed.count[row] <= listed.most;
    const Logits of = {
        logits + (u64)row * vocabulary,
        some ? listed.token + (u64)row * listed.most : 0,
        some ? listed.count[row] : vocabulary,
    };
    return of;
}

// What is wanted of the logits of a row.
struct Select {
    const float *logits;  // [rows, vocabulary]
    Listed listed;
    const u32 *only;      // bits of the tokens that count, [rows, (vocabulary + 31) / 32], or null: all
    const int *count;     // [rows]: so many of the greatest
    int *found;           // [rows]: as many as there are; more than `most` are not listed
    u32 *token;           // [rows, most]
    float *logit;         // [rows, most]
    int vocabulary;
    int most;
};

// The bits of a row.
DEVICE const u32 *bits_of(const u32 *only, int vocabulary, int row) {
    return only ? only + (u64)row * ((vocabulary + 31) / 32) : 0;
}

DEVICE bool counts(const u32 *only, int token) {
    return !only || (only[token / 32] >> (token % 32) & 1);
}

// The key of the last of so many of the greatest, found byte by byte by all threads of a block; 0 where there are no more.
// `look(i, key)` gives the key of number i, and whether it counts.
template <class LOOK>
DEVICE u32 least_of(LOOK look, int n, int wanted) {
    __shared__ int histogram[256];
    __shared__ u32 prefix;
    __shared__ int left;
    if (threadIdx.x == 0) {
        prefix = 0;
        left = wanted;
    }
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < 256; i += SELECT_THREADS) {
            histogram[i] = 0;
        }
        __syncthreads();
        const u32 known = prefix;
#pragma unroll 2
        for (int i = threadIdx.x; i < n; i += SELECT_THREADS) {
            u32 key;
            // All bits above this byte; a shift by 32 would be none.
            if (look(i, key) && (key >> shift) / 256 == (known >> shift) / 256) {
                atomicAdd(histogram + (key >> shift & 255), 1);
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int byte = 255, rest = left;
            while (byte > 0 && histogram[byte] < rest) {
                rest -= histogram[byte];
                byte--;
            }
            left = rest;
            prefix = known | (u32)byte << shift;
        }
        __syncthreads();
    }
    return prefix;
}

// The tokens with the greatest logits of a row, in no order: all that are not less than the last one wanted.
KERNEL(SELECT_THREADS) sample_topk(Select s) {
    const int row = blockIdx.x;
    const Logits logits = logits_of(s.logits, s.vocabulary, s.listed, row);
    const u32 *only = bits_of(s.only, s.vocabulary, row);
    if (threadIdx.x == 0) {
        s.found[row] = 0;
    }
    const auto look = [&](int i, u32 &key) {
        const int token = logits.token(i);
        key = key_of(logits.all[token]);
        return counts(only, token);
    };
    // Behind its first barrier there are no tokens.
    const u32 least = least_of(look, logits.count, s.count[row]);
#pragma unroll 1
    for (int i = threadIdx.x; i < logits.count; i += SELECT_THREADS) {
        u32 key;
        if (look(i, key) && key >= least) {
            const int at = atomicAdd(s.found + row, 1);
            if (at < s.most) {
                const int token = logits.token(i);
                s.token[(u64)row * s.most + at] = token;
                s.logit[(u64)row * s.most + at] = logits.all[token];
            }
        }
    }
}

#define DRAW_THREADS 256
#define DRAW_STEPS 4

// What a sampler does to the tokens that are left, in this order.
enum DrawStep { DRAW_NOTHING = 0, DRAW_TOP_K = 1, DRAW_TOP_P = 2, DRAW_MIN_P = 3, DRAW_TEMPERATURE = 4 };

// How a token is drawn.
struct Draw {
    float uniform; // from 0 to 1
    struct {
        int kind;
        u32 value; // a number of tokens, or the bits of a float
    } steps[DRAW_STEPS];
};

// The tokens of a row, the likeliest first.
struct Drawn {
    u64 keys[DRAW_THREADS]; // in the low half the token
    float logits[DRAW_THREADS];
    float probabilities[DRAW_THREADS];
};

// Sorts by logit, the greatest first, and equal ones by token; `n` is a power of two.
DEVICE void sort(u64 *keys, int n) {
    for (int run = 2; run <= n; run *= 2) {
        for (int by = run / 2; by; by /= 2) {
            __syncthreads();
            const int i = threadIdx.x, other = i ^ by;
            if (other > i && i < n) {
                const u64 a = keys[i], b = keys[other];
                if ((a > b) == ((i & run) == 0)) {
                    keys[i] = b;
                    keys[other] = a;
                }
            }
        }
    }
    __syncthreads();
}

// The probabilities of the first tokens, by the threads of a warp: summed up as the processor does.
DEVICE void soften(Drawn &d, int n) {
    const float greatest = d.logits[0];
    float sum = 0.0f;
    // All are done with what was there.
    __syncwarp();
    for (int i = lane_id(); i < n; i += WARP) {
        d.probabilities[i] = exp_of(fmaxf(d.logits[i] - greatest, -1e9f));
    }
    __syncwarp();
    for (int i = lane_id(); i < n && lane_id() < LANES; i += LANES) {
        sum = sum + d.probabilities[i];
    }
    const float factor = __frcp_rn(__shfl_sync(ALL, tree(sum), 0));
    __syncwarp();
    for (int i = lane_id(); i < n; i += WARP) {
        d.probabilities[i] = d.probabilities[i] * factor;
    }
    __syncwarp();
}

// How many tokens a step leaves of `n`.
DEVICE int step_of(Drawn &d, int kind, u32 value, int n) {
    const float x = __int_as_float(value);
    if (kind == DRAW_TOP_K) {
        return (int)min((u32)n, value);
    }
    if (kind == DRAW_TEMPERATURE) {
        const float greatest = d.logits[0], by = fmaxf(x, 1.17549435e-38f);
        __syncwarp();
        for (int i = lane_id(); i < n; i += WARP) {
            d.logits[i] = fmaxf(__fdiv_rn(d.logits[i] - greatest, by), -1e9f);
        }
        __syncwarp();
        return n;
    }
    soften(d, n);
    if (kind == DRAW_MIN_P) {
        const float least = d.probabilities[0] * x;
        int enough = 0;
        for (int i = lane_id(); i < n; i += WARP) {
            enough += d.probabilities[i] >= least;
        }
        return max(warp_sum(enough), 1);
    }
    float sum = 0.0f;
    for (int i = 0; i < n; i++) {
        sum = sum + d.probabilities[i];
        if (sum >= x) {
            return i + 1;
        }
    }
    return n;
}

// Draws of the tokens that were found for a row the one that the next pass takes. Of a row with more than there is room for it is
// token 0: who draws by himself finds out.
KERNEL(DRAW_THREADS)
sample_draw(const int *found, const u32 *token, const float *logit, int most, const Draw *draws, int *next) {
    __shared__ Drawn d;
    const int row = blockIdx.x, i = threadIdx.x;
    const Draw &draw = draws[row];
    int n = found[row];
    if (n <= 0 || n > most || n > DRAW_THREADS) {
        if (i == 0) {
            next[row] = 0;
        }
        return;
    }
    token += (u64)row * most;
    logit += (u64)row * most;
    d.keys[i] = i < n ? (u64)~key_of(logit[i]) << 32 | token[i] : ~0ull;
    int room = 1;
    while (room < n) {
        room *= 2;
    }
    sort(d.keys, room);
    // Keys are in the order of logits, and give them back.
    const u32 key = ~(u32)(d.keys[i] >> 32);
    d.logits[i] = __int_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
    __syncthreads();
    if (warp_id() != 0) {
        return;
    }
#pragma unroll 1
    for (int at = 0; at < DRAW_STEPS; at++) {
        if (draw.steps[at].kind != DRAW_NOTHING) {
            n = step_of(d, draw.steps[at].kind, draw.steps[at].value, n);
        }
    }
    soften(d, n);
    if (i == 0) {
        float left = draw.uniform;
        int drawn = 0;
        while (drawn < n - 1 && (left = left - d.probabilities[drawn]) >= 0.0f) {
            drawn++;
        }
        next[row] = (int)(u32)d.keys[drawn];
    }
}
