// Positions, keys and values, and attention.

#define ROPE_THREADS 256
#define ATTEND_THREADS 256
// Heads that share a look at keys and values.
#define HEADS 4

struct Rope {
    float *q;         // [rows, heads, size]; turned where it is
    const float *k;   // [rows, kv heads, size]
    const float *v;   // the same
    const float *cos; // [positions, size / 2]
    const float *sin; // the same
    int heads;
};

// A number of a head, turned by the angles of a position.
DEVICE float turned(const float *head, int dim, int half, const float *cos, const float *sin) {
    const int i = dim % half;
    const float a = head[i], b = head[half + i], c = cos[i], s = sin[i];
    return dim < half ? fma(a, c, -(b * s)) : fma(b, c, a * s);
}

// Puts keys and values of a row into the cache, of `heads` heads from `first` on; keys are turned before.
template <class KV>
DEVICE void append(const Rope &rope, const Cache &cache, int row, int sequence, int position, int first, int heads) {
    const int size = cache.size, half = size / 2, lane = position % KV_BLOCK;
    const float *cos = rope.cos + (u64)position * half, *sin = rope.sin + (u64)position * half;
    const u64 at = ((u64)row * cache.kv_heads + first) * size;
    const float *k = rope.k + at, *v = rope.v + at;
    // Whole warps, since some formats have blocks of as many numbers.
    for (int i = threadIdx.x; i < heads * size; i += ROPE_THREADS) {
        const int head = i / size, dim = i % size;
        u8 *keys = keys_at<KV>(cache, sequence, position, first + head);
        KV::put_key(keys, dim, lane, turned(k + head * size, dim, half, cos, sin));
        KV::put_value(keys + values_behind<KV>(cache), size, dim, lane, v[i]);
    }
}

// Turns queries and keys by their positions, and puts keys and values into the cache. A block for each row.
template <class KV>
DEVICE void rope_kv_append(const Rope &rope, const Rows &rows, const Cache &cache) {
    const int row = blockIdx.x, position = rows.position[row], sequence = rows.sequence[row];
    if (position < 0) {
        return;
    }
    const int size = cache.size, half = size / 2;
    const float *cos = rope.cos + (u64)position * half, *sin = rope.sin + (u64)position * half;
    float *q = rope.q + (u64)row * rope.heads * size;
    for (int i = threadIdx.x; i < rope.heads * half; i += ROPE_THREADS) {
        float *at = q + i / half * size + i % half;
        const float a = at[0], b = at[half], c = cos[i % half], s = sin[i % half];
        at[0] = fma(a, c, -(b * s));
        at[half] = fma(b, c, a * s);
    }
    append<KV>(rope, cache, row, sequence, position, 0, cache.kv_heads);
}

KERNEL(ROPE_THREADS) rope_kv_append_f32(Rope rope, Rows rows, Cache cache) {
    rope_kv_append<KvF32>(rope, rows, cache);
}

KERNEL(ROPE_THREADS) rope_kv_append_f16(Rope rope, Rows rows, Cache cache) {
    rope_kv_append<KvF16>(rope, rows, cache);
}

KERNEL(ROPE_THREADS) rope_kv_append_q8_0(Rope rope, Rows rows, Cache cache) {
    rope_kv_append<KvQ8>(rope, rows, cache);
}

struct Attend {
    const float *q; // [rows, heads, size]
    float *out;     // the same
    float *parts;   // [rows, kv heads, spans, group, size + 2], where there are several spans
    u32 *counters;  // [rows, kv heads], zeros
    float scale;    // of scores
    int group;      // query heads that share keys and values
};

// What a block keeps in shared memory, each for all heads of the group.
struct Scores {
    float *q;       // [group, size]
    float *weights; // [group, SPAN]: scores, then weights
    float *shrink;  // [group, SPAN / KV_BLOCK]: what came before counts so much less from this block on
    float *tail;    // [group, 2]: greatest score, sum of weights
};

DEVICE Scores scores_of(float *memory, int group, int size) {
    Scores s;
    s.q = memory;
    s.weights = s.q + group * size;
    s.shrink = s.weights + group * SPAN;
    s.tail = s.shrink + group * (SPAN / KV_BLOCK);
    return s;
}

// Scores of a span of positions: a thread has a position at a time, and sums over the numbers of its key in order.
template <class KV>
DEVICE void score(const Attend &a, const Cache &cache, const Scores &s, int sequence, int head, int first, int seen) {
    for (int i = threadIdx.x; i < seen; i += ATTEND_THREADS) {
        const u8 *keys = keys_at<KV>(cache, sequence, first + i, head);
        for (int g = 0; g < a.group; g += HEADS) {
            const float *q = s.q + g * cache.size;
            float sum[HEADS] = {};
            for (int dim = 0; dim < cache.size; dim++) {
                const float key = KV::key(keys, dim, i % KV_BLOCK);
#pragma unroll
                for (int h = 0; h < HEADS; h++) {
                    if (g + h < a.group) {
                        sum[h] = fma(q[h * cache.size + dim], key, sum[h]);
                    }
                }
            }
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                if (g + h < a.group) {
                    s.weights[(g + h) * SPAN + i] = sum[h] * a.scale;
                }
            }
        }
    }
}

// Scores to weights, a warp for each head: relative to the greatest score up to their block of positions.
DEVICE void soften(const Attend &a, const Scores &s, int seen) {
    const int lane = lane_id();
    for (int g = warp_id(); g < a.group; g += ATTEND_THREADS / WARP) {
        float *weights = s.weights + g * SPAN, *shrinks = s.shrink + g * (SPAN / KV_BLOCK);
        float greatest = -INFINITE;
        bool wrong = false;
        for (int i = lane * KV_BLOCK; i < min(seen, (lane + 1) * KV_BLOCK); i++) {
            greatest = fmaxf(greatest, weights[i]);
            wrong |= !is_finite(weights[i]);
        }
        wrong = __any_sync(ALL, wrong);
        // Scores that a thread has looked at are made weights by others.
        __syncwarp();
        // The greatest up to and with each block.
#pragma unroll
        for (int by = 1; by < WARP; by *= 2) {
            const float before = __shfl_up_sync(ALL, greatest, by);
            greatest = lane >= by ? fmaxf(greatest, before) : greatest;
        }
        const float before = __shfl_up_sync(ALL, greatest, 1);
        const float shrink = lane > 0 && greatest > before ? exp_of(before - greatest) : 1.0f;
        shrinks[lane] = shrink;
        float sum = 0.0f;
        for (int block = 0; block * KV_BLOCK < seen; block++) {
            const float most = __shfl_sync(ALL, greatest, block), less = __shfl_sync(ALL, shrink, block);
            const int i = block * KV_BLOCK + lane;
            if (lane < KV_BLOCK) {
                sum = sum * less;
                if (i < seen) {
                    weights[i] = exp_of(weights[i] - most);
                    sum = sum + weights[i];
                }
            }
        }
        sum = tree(sum);
        greatest = __shfl_sync(ALL, greatest, (seen - 1) / KV_BLOCK);
        if (lane == 0) {
            s.tail[2 * g] = wrong ? NOT_A_NUMBER : greatest;
            s.tail[2 * g + 1] = wrong ? NOT_A_NUMBER : sum;
        }
    }
}

// Values by their weights: a thread has a number of some heads at a time, and sums over positions in order.
template <class KV>
DEVICE void weigh_values(
    const Attend &a, const Cache &cache, const Scores &s, int sequence, int head, int first, int seen, float *out, int stride) {
    const int size = cache.size, groups = (a.group + HEADS - 1) / HEADS;
    for (int item = threadIdx.x; item < groups * size; item += ATTEND_THREADS) {
        const int g = item / size * HEADS, dim = item % size;
        float sum[HEADS] = {};
        for (int i = 0; i < seen; i++) {
            const int block = i / KV_BLOCK;
            const u8 *values = keys_at<KV>(cache, sequence, first + i, head) + values_behind<KV>(cache);
            const float value = KV::value(values, size, dim, i % KV_BLOCK);
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                if (g + h < a.group) {
                    if (i % KV_BLOCK == 0) {
                        sum[h] = sum[h] * s.shrink[(g + h) * (SPAN / KV_BLOCK) + block];
                    }
                    sum[h] = fma(s.weights[(g + h) * SPAN + i], value, sum[h]);
                }
            }
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            if (g + h < a.group) {
                const bool wrong = s.tail[2 * (g + h)] != s.tail[2 * (g + h)];
                out[(g + h) * stride + dim] = wrong ? NOT_A_NUMBER : sum[h];
            }
        }
    }
}

// The result of some spans: a part counts e^(its greatest - greatest of all) times as much as it says.
template <int THREADS>
DEVICE void join(const Attend &a, int size, const float *parts, int spans, float *out) {
    const int width = size + 2, stride = a.group * width;
    for (int i = threadIdx.x; i < a.group * size; i += THREADS) {
        const int g = i / size, dim = i % size;
        const float *part = parts + g * width;
        float greatest = -INFINITE;
        for (int span = 0; span < spans; span++) {
            greatest = fmaxf(greatest, __ldcg(part + span * stride + size));
        }
        float sum = 0.0f, x = 0.0f;
        for (int span = 0; span < spans; span++) {
            const float *at = part + span * stride;
            const float factor = exp_of(__ldcg(at + size) - greatest);
            sum = fma(factor, __ldcg(at + size + 1), sum);
            x = fma(factor, __ldcg(at + dim), x);
        }
        out[i] = x * __frcp_rn(sum);
    }
}

extern __shared__ float attend_memory[];

// The queries of a row that share keys and values, turned by its position.
DEVICE void turn_queries(const Attend &a, const Rope &rope, int size, int position, u64 at, float *q) {
    const int half = size / 2;
    const float *cos = rope.cos + (u64)position * half, *sin = rope.sin + (u64)position * half;
    for (int i = threadIdx.x; i < a.group * size; i += ATTEND_THREADS) {
        q[i] = turned(a.q + at + i / size * size, i % size, half, cos, sin);
    }
}

// A block for the heads of a row that share keys and values, and a span of positions of `all`. The last block of a row and these heads to
// come to its end joins the parts. Where there is something to turn, queries and keys are as they come from their products: the block
// that attends to the row itself puts its keys and values into the cache, and no other row of the pass may look at them.
template <class KV>
DEVICE void attend(const Attend &a, const Rope &rope, const Rows &rows, const Cache &cache, const Where &block, int all, u32 &last) {
    const int head = block.x, row = block.y, span = block.z, size = cache.size;
    const int position = rows.position[row], sequence = rows.sequence[row];
    if (position < 0 || span > position / SPAN) {
        return;
    }
    // So that there is no code for what cannot be.
    __builtin_assume(a.group > 0);
    __builtin_assume(size > 0 && size % 2 == 0);
    const int spans = position / SPAN + 1, first = span * SPAN, seen = min(position + 1 - first, SPAN);
    const Scores s = scores_of(attend_memory, a.group, size);
    const u64 at = ((u64)row * cache.kv_heads + head) * a.group * size;
    if (rope.k) {
        turn_queries(a, rope, size, position, at, s.q);
        if (span == spans - 1) {
            append<KV>(rope, cache, row, sequence, position, head, 1);
        }
    } else {
        for (int i = threadIdx.x; i < a.group * size; i += ATTEND_THREADS) {
            s.q[i] = a.q[at + i];
        }
    }
    __syncthreads();
    score<KV>(a, cache, s, sequence, head, first, seen);
    __syncthreads();
    soften(a, s, seen);
    __syncthreads();
    const int width = size + 2;
    float *parts = a.parts + ((u64)row * cache.kv_heads + head) * all * a.group * width;
    float *part = parts + span * a.group * width;
    weigh_values<KV>(a, cache, s, sequence, head, first, seen, part, width);
    for (int i = threadIdx.x; i < 2 * a.group; i += ATTEND_THREADS) {
        part[i / 2 * width + size + i % 2] = s.tail[i];
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        // Comes back to 0 by itself.
        last = atomicInc(a.counters + row * cache.kv_heads + head, spans - 1) == spans - 1;
    }
    __syncthreads();
    if (last) {
        __threadfence();
        join<ATTEND_THREADS>(a, size, parts, spans, a.out + at);
    }
}

KERNEL(ATTEND_THREADS) attn_gqa_f32(Attend a, Rope rope, Rows rows, Cache cache) {
    __shared__ u32 last;
    attend<KvF32>(a, rope, rows, cache, here(), gridDim.z, last);
}

KERNEL(ATTEND_THREADS) attn_gqa_f16(Attend a, Rope rope, Rows rows, Cache cache) {
    __shared__ u32 last;
    attend<KvF16>(a, rope, rows, cache, here(), gridDim.z, last);
}

KERNEL(ATTEND_THREADS) attn_gqa_q8_0(Attend a, Rope rope, Rows rows, Cache cache) {
    __shared__ u32 last;
    attend<KvQ8>(a, rope, rows, cache, here(), gridDim.z, last);
}
