// A pass in one launch: as many blocks as the device holds at a time do one operation after another, and wait for all others between
// two. The first weights of the next product are on their way while they wait.

#if __CUDA_ARCH__ >= 800

#define MEGA_THREADS 256

// What there is to do, as the kernels of these names do it.
enum Kind {
    EMBED_F32,
    EMBED_F16,
    EMBED_BF16,
    NORM,
    ADD,
    GATE,
    GEMV_NORM,
    GEMV_QUANTIZE,
    GEMV_NORM_GATE,
    ATTEND_F32,
    ATTEND_F16,
    ATTEND_Q8
};

// An operation: how many blocks it would be launched with, and the arguments of its kernel.
struct Op {
    int kind;
    int x, y, z;
    u64 args[20];
};

#define OP_WORDS (sizeof(Op) / sizeof(u64))

struct EmbedArgs {
    const u8 *table;
    Rows rows;
    int cols;
    float scale;
    float *y;
};

struct NormArgs {
    Norm norm;
    float *y;
};

struct AddArgs {
    float *sum;
    const float *x;
    int n;
};

struct GateArgs {
    float *gate;
    const float *up;
    int activation;
    int n;
};

struct GemvArgs {
    Input in;
    Product p;
};

struct AttendArgs {
    Attend a;
    Rope rope;
    Rows rows;
    Cache cache;
};

// What a block has in shared memory.
struct Mega {
    Op ops[2]; // this one and the next in turns
    int sums[2][MEGA_THREADS / WARP][GEMV_RESULTS];
    Prepared known;
    float factor;
    u32 last;
};

// What it has of the first tiles that it will multiply: of one matrix, or of both that a gate takes.
struct Next {
    Share first, second;
};

template <class ARGS>
DEVICE const ARGS &args_of(const Op &op) {
    return *(const ARGS *)op.args;
}

// Waits for all blocks; what they wrote before, all can read behind it. Together they add half of all numbers there are: the highest
// bit changes when the last of them comes, and the others are as before.
DEVICE void wait_for_all(u32 *arrived) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        const u32 before = atomicAdd(arrived, blockIdx.x == 0 ? 0x80000001u - gridDim.x : 1);
        u32 now;
        do {
            asm volatile("ld.acquire.gpu.u32 %0, [%1];" : "=r"(now) : "l"(arrived) : "memory");
        } while (((before ^ now) & 0x80000000u) == 0);
        __threadfence();
    }
    __syncthreads();
}

DEVICE void fetch(Op &to, const Op *from) {
    if (threadIdx.x < OP_WORDS) {
        ((u64 *)&to)[threadIdx.x] = ((const u64 *)from)[threadIdx.x];
    }
}

// The weights of a tile, if the operation is a product that has it.
DEVICE void begin_tile(const Op &op, int tile, Next &next) {
    if (tile >= op.x) {
        return;
    }
    const Product &p = args_of<GemvArgs>(op).p;
    if (op.kind == GEMV_NORM_GATE) {
        next.first = begin(p, p.of[0].weights, tile);
        next.second = begin(p, p.of[1].weights, tile);
    } else if (op.kind == GEMV_NORM || op.kind == GEMV_QUANTIZE) {
        next.first = begin_any(p, tile);
    }
}

template <bool NORM, bool GATE>
DEVICE void multiply(const Op &op, Mega &m, Next &next) {
    if (blockIdx.x >= op.x) {
        return;
    }
    const GemvArgs &args = args_of<GemvArgs>(op);
    const Few few = prepare<NORM>(args.in, args.p, m.known);
    for (int tile = blockIdx.x; tile < op.x; tile += gridDim.x) {
        const Next now = next;
        begin_tile(op, tile + gridDim.x, next);
        const int sum = tile_by_mma(now.first, few, m.sums[0]);
        if (GATE) {
            put_gated_prepared(args.p, tile, sum, tile_by_mma(now.second, few, m.sums[1]), m.known);
        } else {
            put_prepared(args.p, tile, sum, m.known);
        }
        __syncthreads();
    }
}

template <class KV>
DEVICE void attend_all(const Op &op, Mega &m) {
    const AttendArgs &args = args_of<AttendArgs>(op);
    for (int i = blockIdx.x; i < op.x * op.y * op.z; i += gridDim.x) {
        const Where at = {i % op.x, i / op.x % op.y, i / op.x / op.y};
        attend<KV>(args.a, args.rope, args.rows, args.cache, at, op.z, m.last);
        __syncthreads();
    }
}

template <class ROW>
DEVICE void embed_all(const Op &op) {
    const EmbedArgs &args = args_of<EmbedArgs>(op);
    for (int row = blockIdx.x; row < op.x; row += gridDim.x) {
        embed<ROW>(args.table, args.rows, args.cols, args.scale, args.y, row);
    }
}

DEVICE void small(const Op &op, Mega &m) {
    for (int block = blockIdx.x; block < op.x; block += gridDim.x) {
        if (op.kind == NORM) {
            const NormArgs &args = args_of<NormArgs>(op);
            rmsnorm(args.norm, args.y, block, &m.factor);
            __syncthreads();
        } else if (op.kind == ADD) {
            const AddArgs &args = args_of<AddArgs>(op);
            add(args.sum, args.x, args.n, block);
        } else {
            const GateArgs &args = args_of<GateArgs>(op);
            gate(args.gate, args.up, args.activation, args.n, block);
        }
    }
}

DEVICE void run(const Op &op, Mega &m, Next &next) {
    switch (op.kind) {
    case EMBED_F32:
        return embed_all<RowF32>(op);
    case EMBED_F16:
        return embed_all<RowF16>(op);
    case EMBED_BF16:
        return embed_all<RowBF16>(op);
    case GEMV_NORM:
        return multiply<true, false>(op, m, next);
    case GEMV_QUANTIZE:
        return multiply<false, false>(op, m, next);
    case GEMV_NORM_GATE:
        return multiply<true, true>(op, m, next);
    case ATTEND_F32:
        return attend_all<KvF32>(op, m);
    case ATTEND_F16:
        return attend_all<KvF16>(op, m);
    case ATTEND_Q8:
        return attend_all<KvQ8>(op, m);
    default:
        return small(op, m);
    }
}

KERNEL_BLOCKS(MEGA_THREADS, 2) i2s_gpu_megadecode(const Op *ops, int count, u32 *arrived) {
    __shared__ Mega m;
    Next next = {};
    fetch(m.ops[0], ops);
    __syncthreads();
    begin_tile(m.ops[0], blockIdx.x, next);
    for (int i = 0; i < count; i++) {
        if (i + 1 < count) {
            fetch(m.ops[(i + 1) % 2], ops + i + 1);
        }
        run(m.ops[i % 2], m, next);
        if (i + 1 < count) {
            __syncthreads();
            begin_tile(m.ops[(i + 1) % 2], blockIdx.x, next);
            wait_for_all(arrived);
        }
    }
}

#endif
