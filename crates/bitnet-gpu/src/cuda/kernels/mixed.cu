// Products of floats in the precisions that a device has, and numbers from one precision to another. Forward passes do without:
// they are for those who bring floats, and a second opinion on products with ternary weights, which are exact in all of them.

#define MATMUL_TILE 16
#define MATMUL_THREADS (MATMUL_TILE * MATMUL_TILE)
#define CONVERT_THREADS 256

struct Matmul {
    const void *a; // [m, k]
    const void *b; // [k, n]
    float *c;      // [m, n]
    int m;
    int n;
    int k;
};

struct Single {
    typedef float Stored;
    DEVICE_MEMBER float get(float x) {
        return x;
    }
};

struct Half {
    typedef u16 Stored;
    DEVICE_MEMBER float get(u16 x) {
        return half_to_float(x);
    }
};

struct BFloat {
    typedef u16 Stored;
    DEVICE_MEMBER float get(u16 x) {
        return bfloat_to_float(x);
    }
};

// A thread for each number of a tile of the result, which sums up in order of k.
template <class T>
DEVICE void matmul(const Matmul &p) {
    __shared__ float a[MATMUL_TILE][MATMUL_TILE], b[MATMUL_TILE][MATMUL_TILE];
    typedef const typename T::Stored *From;
    const int x = threadIdx.x % MATMUL_TILE, y = threadIdx.x / MATMUL_TILE;
    const int row = blockIdx.y * MATMUL_TILE + y, col = blockIdx.x * MATMUL_TILE + x;
    float sum = 0.0f;
    for (int start = 0; start < p.k; start += MATMUL_TILE) {
        const int left = start + x, right = start + y;
        a[y][x] = row < p.m && left < p.k ? T::get(((From)p.a)[(u64)row * p.k + left]) : 0.0f;
        b[y][x] = col < p.n && right < p.k ? T::get(((From)p.b)[(u64)right * p.n + col]) : 0.0f;
        __syncthreads();
        const int here = min(MATMUL_TILE, p.k - start);
        for (int i = 0; i < here; i++) {
            sum = fma(a[y][i], b[i][x], sum);
        }
        __syncthreads();
    }
    if (row < p.m && col < p.n) {
        p.c[(u64)row * p.n + col] = sum;
    }
}

KERNEL(MATMUL_THREADS) bitnet_matmul_fp32(Matmul p) {
    matmul<Single>(p);
}

KERNEL(MATMUL_THREADS) bitnet_matmul_fp16(Matmul p) {
    matmul<Half>(p);
}

KERNEL(MATMUL_THREADS) bitnet_matmul_bf16(Matmul p) {
    matmul<BFloat>(p);
}

#if __CUDA_ARCH__ >= 800
DEVICE u32 wmma_place(const void *shared) {
    return (u32)__cvta_generic_to_shared(shared);
}

struct WmmaHalf {
    u32 a[8], b[8];
    __device__ __forceinline__ void load(u32 left, u32 right) {
        asm volatile("wmma.load.a.sync.aligned.row.m16n16k16.shared.f16 {%0,%1,%2,%3,%4,%5,%6,%7}, [%8], 16;"
                     : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]), "=r"(a[4]), "=r"(a[5]), "=r"(a[6]), "=r"(a[7])
                     : "r"(left) : "memory");
        asm volatile("wmma.load.b.sync.aligned.row.m16n16k16.shared.f16 {%0,%1,%2,%3,%4,%5,%6,%7}, [%8], 16;"
                     : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3]), "=r"(b[4]), "=r"(b[5]), "=r"(b[6]), "=r"(b[7])
                     : "r"(right) : "memory");
    }
    __device__ __forceinline__ void multiply(float (&d)[8]) {
        asm volatile("wmma.mma.sync.aligned.row.row.m16n16k16.f32.f32 {%0,%1,%2,%3,%4,%5,%6,%7},"
                     "{%8,%9,%10,%11,%12,%13,%14,%15},{%16,%17,%18,%19,%20,%21,%22,%23},{%0,%1,%2,%3,%4,%5,%6,%7};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]),
                       "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(b[4]), "r"(b[5]), "r"(b[6]), "r"(b[7]));
    }
};

struct WmmaBFloat {
    u32 a[4], b[4];
    __device__ __forceinline__ void load(u32 left, u32 right) {
        asm volatile("wmma.load.a.sync.aligned.row.m16n16k16.shared.bf16 {%0,%1,%2,%3}, [%4], 16;"
                     : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(left) : "memory");
        asm volatile("wmma.load.b.sync.aligned.row.m16n16k16.shared.bf16 {%0,%1,%2,%3}, [%4], 16;"
                     : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3]) : "r"(right) : "memory");
    }
    __device__ __forceinline__ void multiply(float (&d)[8]) {
        asm volatile("wmma.mma.sync.aligned.row.row.m16n16k16.f32.bf16.bf16.f32 {%0,%1,%2,%3,%4,%5,%6,%7},"
                     "{%8,%9,%10,%11},{%12,%13,%14,%15},{%0,%1,%2,%3,%4,%5,%6,%7};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]));
    }
};

// A warp for each tile of the result, on tensor cores; what is behind the edges counts as zeros.
template <class FRAGMENTS>
DEVICE void wmma_matmul(const Matmul &p) {
    __shared__ __align__(32) u16 a[MATMUL_TILE * MATMUL_TILE];
    __shared__ __align__(32) u16 b[MATMUL_TILE * MATMUL_TILE];
    __shared__ __align__(32) float c[MATMUL_TILE * MATMUL_TILE];
    const u16 *left = (const u16 *)p.a, *right = (const u16 *)p.b;
    const int first_row = blockIdx.y * MATMUL_TILE, first_col = blockIdx.x * MATMUL_TILE;
    float d[8] = {};
    for (int start = 0; start < p.k; start += MATMUL_TILE) {
#pragma unroll
        for (int turn = 0; turn < MATMUL_TILE * MATMUL_TILE / WARP; turn++) {
            const int i = turn * WARP + threadIdx.x;
            const int y = i / MATMUL_TILE, x = i % MATMUL_TILE;
            a[i] = first_row + y < p.m && start + x < p.k ? left[(u64)(first_row + y) * p.k + start + x] : 0;
            b[i] = start + y < p.k && first_col + x < p.n ? right[(u64)(start + y) * p.n + first_col + x] : 0;
        }
        __syncwarp();
        FRAGMENTS fragments;
        fragments.load(wmma_place(a), wmma_place(b));
        fragments.multiply(d);
        __syncwarp();
    }
    asm volatile("wmma.store.d.sync.aligned.row.m16n16k16.shared.f32 [%0], {%1,%2,%3,%4,%5,%6,%7,%8}, 16;"
                 :: "r"(wmma_place(c)), "f"(d[0]), "f"(d[1]), "f"(d[2]), "f"(d[3]), "f"(d[4]), "f"(d[5]), "f"(d[6]), "f"(d[7])
                 : "memory");
    __syncwarp();
#pragma unroll
    for (int turn = 0; turn < MATMUL_TILE * MATMUL_TILE / WARP; turn++) {
        const int i = turn * WARP + threadIdx.x;
        const int row = first_row + i / MATMUL_TILE, col = first_col + i % MATMUL_TILE;
        if (row < p.m && col < p.n) {
            p.c[(u64)row * p.n + col] = c[i];
        }
    }
}

KERNEL(WARP) wmma_matmul_fp16(Matmul p) {
    wmma_matmul<WmmaHalf>(p);
}

KERNEL(WARP) wmma_matmul_bf16(Matmul p) {
    wmma_matmul<WmmaBFloat>(p);
}
#endif

// Halves to even; what is no number stays none.
DEVICE u16 float_to_bfloat(float x) {
    const u32 bits = __float_as_int(x);
    return x != x ? (u16)(bits >> 16 | 0x40) : (u16)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

KERNEL(CONVERT_THREADS) convert_fp32_to_fp16(const float *from, u16 *to, int n) {
    const int i = blockIdx.x * CONVERT_THREADS + threadIdx.x;
    if (i < n) {
        to[i] = float_to_half(from[i]);
    }
}

KERNEL(CONVERT_THREADS) convert_fp16_to_fp32(const u16 *from, float *to, int n) {
    const int i = blockIdx.x * CONVERT_THREADS + threadIdx.x;
    if (i < n) {
        to[i] = half_to_float(from[i]);
    }
}

KERNEL(CONVERT_THREADS) convert_fp32_to_bf16(const float *from, u16 *to, int n) {
    const int i = blockIdx.x * CONVERT_THREADS + threadIdx.x;
    if (i < n) {
        to[i] = float_to_bfloat(from[i]);
    }
}

KERNEL(CONVERT_THREADS) convert_bf16_to_fp32(const u16 *from, float *to, int n) {
    const int i = blockIdx.x * CONVERT_THREADS + threadIdx.x;
    if (i < n) {
        to[i] = bfloat_to_float(from[i]);
    }
}
