/* Plain C: the level every machine has, and the tails of the others. Written so that gcc and clang vectorise it. */
#ifndef TALKSPURT_KERNEL_C_H
#define TALKSPURT_KERNEL_C_H

#include "kernel_base64.h"
#include "kernel_table.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

typedef union {
    uint32_t bits;
    float value;
} float_bits;

ALWAYS_INLINE int16_t saturate_s16(int32_t v)
{
    return (int16_t)(v > 32767 ? 32767 : v < -32768 ? -32768 : v);
}

/* G.711 is a float with three exponent bits, so the machine's own float format does the segment arithmetic:
 * exponent = segment, upper mantissa = the four bits of the code, next bit = the half step. */

ALWAYS_INLINE int16_t pcmu_sample(uint8_t code)
{
    const int32_t u = code ^ 0xFF;
    float_bits f = {.bits = ((uint32_t)(u & 0x7F) << 19) + ((127u + 7u) << 23) + (1u << 18)};
    const int32_t magnitude = (int32_t)f.value - 132;
    const int32_t sign = -(u >> 7);
    return (int16_t)((magnitude ^ sign) - sign);
}

ALWAYS_INLINE int16_t pcma_sample(uint8_t code)
{
    const int32_t c = code ^ 0x55;
    const int32_t linear = (c & 0x70) == 0; /* segment 0 has the step of segment 1 and no leading one */
    float_bits f = {.bits = ((uint32_t)((c & 0x7F) | (linear << 4)) << 19) + ((127u + 7u) << 23) + (1u << 18)};
    const int32_t magnitude = (int32_t)f.value - (linear << 8);
    const int32_t sign = (c >> 7) - 1;
    return (int16_t)((magnitude ^ sign) - sign);
}

ALWAYS_INLINE uint8_t pcmu_code(int16_t sample)
{
    const int32_t v = sample >> 2, sign = v >> 31;
    int32_t m = (v ^ sign) - sign;
    m = (m > 8158 ? 8158 : m) + 33;
    float_bits f = {.value = (float)m};
    const int32_t code = (int32_t)(f.bits >> 19) - ((127 + 5) << 4);
    return (uint8_t)(code ^ 0xFF ^ (sign & 0x80));
}

ALWAYS_INLINE uint8_t pcma_code(int16_t sample)
{
    const int32_t v = sample >> 3, sign = v >> 31, m = v ^ sign;
    const int32_t linear = (m - 32) >> 31; /* segment 0: borrow a leading one, give its segment back */
    float_bits f = {.value = (float)(m + (linear & 32))};
    const int32_t code = (int32_t)(f.bits >> 19) - ((127 + 4) << 4) - (linear & 16);
    return (uint8_t)(code ^ 0xD5 ^ (sign & 0x80));
}

ALWAYS_INLINE void gain_ramp_body(int16_t *dst, ptrdiff_t n, int32_t from_q15, int32_t step_q30)
{
    /* Unsigned, so that the one step past the last sample may wrap. */
    uint32_t g = (uint32_t)from_q15 << 15;
    for (ptrdiff_t i = 0; i < n; i++) {
        dst[i] = (int16_t)((dst[i] * (int32_t)(g >> 15)) >> 15);
        g += (uint32_t)step_q30;
    }
}

static void pcmu_to_s16_c(const uint8_t *restrict src, int16_t *restrict dst, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        dst[i] = pcmu_sample(src[i]);
}

static void pcma_to_s16_c(const uint8_t *restrict src, int16_t *restrict dst, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        dst[i] = pcma_sample(src[i]);
}

static void s16_to_pcmu_c(const int16_t *restrict src, uint8_t *restrict dst, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        dst[i] = pcmu_code(src[i]);
}

static void s16_to_pcma_c(const int16_t *restrict src, uint8_t *restrict dst, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        dst[i] = pcma_code(src[i]);
}

/* One tap at a time over a block of sums: the form in which every compiler finds its widening multiply-add. */
static void fir_tap_c(int32_t *restrict sum, const int16_t *restrict x, int16_t tap, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        sum[i] += x[i] * tap;
}

static void fir_row_c(const int16_t *plane, const fir_term *term, ptrdiff_t count, int shift, int16_t *dst,
                      ptrdiff_t n)
{
    int32_t sum[2][5 * FIR_STEP];
    for (ptrdiff_t i = 0; i < n; i += 5 * FIR_STEP) {
        const ptrdiff_t block = n - i < 5 * FIR_STEP ? n - i : 5 * FIR_STEP;
        for (ptrdiff_t j = 0; j < block; j++) {
            sum[0][j] = 1 << (shift - 1);
            sum[1][j] = 0;
        }
        for (ptrdiff_t t = 0; t < count; t++) {
            fir_tap_c(sum[t & 1], plane + term[t].at + i, term[t].tap[0], block);
            fir_tap_c(sum[t & 1], plane + term[t].at + i + 1, term[t].tap[1], block);
        }
        for (ptrdiff_t j = 0; j < block; j++) { /* floor((a + b) / 2) without a 33rd bit */
            const int32_t a = sum[0][j], b = sum[1][j];
            dst[i + j] = saturate_s16(((a & b) + ((a ^ b) >> 1)) >> (shift - 1));
        }
    }
}

static void interleave2_c(const int16_t *restrict a, const int16_t *restrict b, int16_t *restrict dst, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        dst[2 * i] = a[i];
        dst[2 * i + 1] = b[i];
    }
}

static void interleave3_c(const int16_t *restrict a, const int16_t *restrict b, const int16_t *restrict c,
                          int16_t *restrict dst, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        dst[3 * i] = a[i];
        dst[3 * i + 1] = b[i];
        dst[3 * i + 2] = c[i];
    }
}

static void deinterleave2_c(const int16_t *restrict src, int16_t *restrict a, int16_t *restrict b, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        a[i] = src[2 * i];
        b[i] = src[2 * i + 1];
    }
}

static void deinterleave3_c(const int16_t *restrict src, int16_t *restrict a, int16_t *restrict b,
                            int16_t *restrict c, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        a[i] = src[3 * i];
        b[i] = src[3 * i + 1];
        c[i] = src[3 * i + 2];
    }
}

static void level_peak_c(const int16_t *src, ptrdiff_t n, int64_t *energy, int32_t *peak)
{
    int64_t sum = 0;
    int16_t low = 0, high = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const int16_t x = src[i];
        sum += (int64_t)(x * x);
        low = x < low ? x : low;
        high = x > high ? x : high;
    }
    *energy = sum;
    *peak = -low > high ? -low : high;
}

static void mix_q15_c(int16_t *dst, const int16_t *src, ptrdiff_t n, int32_t gain_q15)
{
    for (ptrdiff_t i = 0; i < n; i++)
        dst[i] = saturate_s16(dst[i] + ((src[i] * gain_q15) >> 15));
}

static void gain_ramp_c(int16_t *dst, ptrdiff_t n, int32_t from_q15, int32_t step_q30)
{
    gain_ramp_body(dst, n, from_q15, step_q30);
}

static const kernel_table KERNEL_C = {
    "c",           pcmu_to_s16_c, pcma_to_s16_c,   s16_to_pcmu_c,   s16_to_pcma_c, fir_row_c,   interleave2_c,
    interleave3_c, deinterleave2_c, deinterleave3_c, level_peak_c,    mix_q15_c,     gain_ramp_c,
    base64_decode_c, base64_encode_c,
};

#endif
