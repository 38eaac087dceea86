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

// The token with the greatest logit of each row, the first of equals, is what the next pass takes.
KERNEL(SELECT_THREADS) sample_argmax(const float *all, Listed listed, int vocabulary, int *next) {
    __shared__ u64 best[SELECT_THREADS / WARP];
    const int row = blockIdx.x;
    const Logits logits = logits_of(all, vocabulary, listed, row);
    u64 most = 0;
    for (int i = threadIdx.x; i < logits.count; i += SELECT_THREADS) {
        const u32 token = logits.token(i);
        const u64 key = (u64)key_of(logits.all[token]) << 32 | ~token;
        most = key > most ? key : most;
    }
#pragma unroll
    for (int half = WARP / 2; half; half /= 2) {
        const u64 other = __shfl_xor_sync(ALL, most, half);
        most = other > most ? other : most;
    }
    if (lane_id() == 0) {
        best[warp_id()] = most;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < SELECT_THREADS / WARP; warp++) {
            most = best[warp] > most ? best[warp] : most;
        }
        next[row] = (int)~(u32)most;
    }
}
