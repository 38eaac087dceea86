// What a forward pass works on, and where keys and values lie: all in the memory of the device, so that a pass can be enqueued
// again as it is.

// The rows of a pass. A row whose position is negative is not there.
struct Rows {
    const int *token;
    const int *sequence;
    const int *position;
};

// Keys and values in blocks of sixteen positions, as the processor's cache has them: of each layer the keys of all heads, then the
// values; of a head the keys sixteen positions side by side, the values one after another.
struct Cache {
    u8 *blocks;
    const u32 *tables; // [sequences, table]
    u64 block_bytes;
    int table;
    int layer;
    int kv_heads;
    int size;          // numbers of a head
};

#define KV_BLOCK 16
#define SPAN 512

// The formats of keys and values: bytes of a head of a position, and where a number is in the keys, or values, of a head.
struct KvF32 {
    DEVICE_MEMBER int bytes(int size) {
        return 4 * size;
    }
    DEVICE_MEMBER float key(const u8 *keys, int dim, int lane) {
        return ((const float *)keys)[dim * KV_BLOCK + lane];
    }
    DEVICE_MEMBER float value(const u8 *values, int size, int dim, int lane) {
        return ((const float *)values)[lane * size + dim];
    }
    DEVICE_MEMBER void put_key(u8 *keys, int dim, int lane, float x) {
        ((float *)keys)[dim * KV_BLOCK + lane] = x;
    }
    DEVICE_MEMBER void put_value(u8 *values, int size, int dim, int lane, float x) {
        ((float *)values)[lane * size + dim] = x;
    }
};

struct KvF16 {
    DEVICE_MEMBER int bytes(int size) {
        return 2 * size;
    }
    DEVICE_MEMBER float key(const u8 *keys, int dim, int lane) {
        return half_to_float(((const u16 *)keys)[dim * KV_BLOCK + lane]);
    }
    DEVICE_MEMBER float value(const u8 *values, int size, int dim, int lane) {
        return half_to_float(((const u16 *)values)[lane * size + dim]);
    }
    DEVICE_MEMBER void put_key(u8 *keys, int dim, int lane, float x) {
        ((u16 *)keys)[dim * KV_BLOCK + lane] = float_to_half(x);
    }
    DEVICE_MEMBER void put_value(u8 *values, int size, int dim, int lane, float x) {
        ((u16 *)values)[lane * size + dim] = float_to_half(x);
    }
};

// Blocks of 32 signed bytes and a scale in half precision. A warp stores one: a lane has a number of it.
struct KvQ8 {
    DEVICE_MEMBER int bytes(int size) {
        return size / 32 * 34;
    }
    DEVICE_MEMBER float key(const u8 *keys, int dim, int lane) {
        const u8 *block = keys + dim / 32 * (34 * KV_BLOCK);
        const float scale = half_to_float(((const u16 *)block)[lane]);
        return (float)(i8)block[2 * KV_BLOCK + dim % 32 * KV_BLOCK + lane] * scale;
    }
    DEVICE_MEMBER float value(const u8 *values, int size, int dim, int lane) {
        const u8 *block = values + lane * (size / 32 * 34) + dim / 32 * 34;
        return (float)(i8)block[2 + dim % 32] * half_to_float(*(const u16 *)block);
    }
    // The byte of a lane's number, and the scale of the warp's.
    DEVICE_MEMBER u8 byte_of(float x, u16 &scale) {
        float greatest = is_finite(x) ? fabsf(x) : INFINITE;
#pragma unroll
        for (int half = WARP / 2; half; half /= 2) {
            greatest = fmaxf(greatest, __shfl_xor_sync(ALL, greatest, half));
        }
        const float d = is_finite(greatest) ? __fdiv_rn(greatest, 127.0f) : NOT_A_NUMBER;
        const float inverse = d == 0.0f ? 0.0f : __fdiv_rn(1.0f, d);
        scale = float_to_half(d);
        // What is no number becomes 0.
        return (u8)(int)roundf(x * inverse);
    }
    DEVICE_MEMBER void put_key(u8 *keys, int dim, int lane, float x) {
        u16 scale;
        const u8 byte = byte_of(x, scale);
        u8 *block = keys + dim / 32 * (34 * KV_BLOCK);
        block[2 * KV_BLOCK + dim % 32 * KV_BLOCK + lane] = byte;
        if (dim % 32 == 0) {
            ((u16 *)block)[lane] = scale;
        }
    }
    DEVICE_MEMBER void put_value(u8 *values, int size, int dim, int lane, float x) {
        u16 scale;
        const u8 byte = byte_of(x, scale);
        u8 *block = values + lane * (size / 32 * 34) + dim / 32 * 34;
        block[2 + dim % 32] = byte;
        if (dim % 32 == 0) {
            *(u16 *)block = scale;
        }
    }
};

// The keys of a head in the block of a position; its values follow `kv_heads` heads later.
template <class KV>
DEVICE u8 *keys_at(const Cache &cache, int sequence, int position, int head) {
    const u32 block = cache.tables[(u64)sequence * cache.table + position / KV_BLOCK];
    const int bytes = KV_BLOCK * KV::bytes(cache.size);
    return cache.blocks + block * cache.block_bytes + (u64)(2 * cache.layer * cache.kv_heads + head) * bytes;
}

template <class KV>
DEVICE u64 values_behind(const Cache &cache) {
    return (u64)cache.kv_heads * KV_BLOCK * KV::bytes(cache.size);
}
