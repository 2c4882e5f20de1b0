/* SSE2: what every x86-64 has. Only what the compiler does not find by itself in plain C. */
#ifndef TALKSPURT_KERNEL_SSE2_H
#define TALKSPURT_KERNEL_SSE2_H

#include <immintrin.h>
#include <string.h>

#include "kernel_c.h"

#define LOAD128(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define STORE128(p, v) _mm_storeu_si128((__m128i *)(void *)(p), (v))

ALWAYS_INLINE int32_t tap_pair(const fir_term *term)
{
    int32_t pair;
    memcpy(&pair, term->tap, sizeof pair);
    return pair;
}

/* pmaddwd on the samples at i gives the outputs i, i+2, i+4, i+6; at i+1 the odd ones. */
#define FIR_MADD128(even, odd, x)                                                                                      \
    even = _mm_add_epi32(even, _mm_madd_epi16(LOAD128(x), tap));                                                       \
    odd = _mm_add_epi32(odd, _mm_madd_epi16(LOAD128((x) + 1), tap));

#define FIR_HALF128(a, b) _mm_sra_epi32(_mm_add_epi32(_mm_and_si128(a, b), _mm_srai_epi32(_mm_xor_si128(a, b), 1)), by)

#define FIR_STORE128(at, ae, ao, be, bo)                                                                               \
    do {                                                                                                               \
        const __m128i even = FIR_HALF128(ae, be), odd = FIR_HALF128(ao, bo);                                           \
        STORE128(at, _mm_unpacklo_epi16(_mm_packs_epi32(even, even), _mm_packs_epi32(odd, odd)));                      \
    } while (0)

static void fir_row_sse2(const int16_t *plane, const fir_term *term, ptrdiff_t count, int shift, int16_t *dst,
                         ptrdiff_t n)
{
    const __m128i by = _mm_cvtsi32_si128(shift - 1), round = _mm_set1_epi32(1 << (shift - 1));
    for (ptrdiff_t i = 0; i < n; i += 16) {
        __m128i a0 = round, a1 = round, a2 = round, a3 = round;
        __m128i b0 = _mm_setzero_si128(), b1 = b0, b2 = b0, b3 = b0;
        ptrdiff_t t = 0;
        do {
            const int16_t *x = plane + term[t].at + i;
            __m128i tap = _mm_set1_epi32(tap_pair(term + t));
            FIR_MADD128(a0, a1, x)
            FIR_MADD128(a2, a3, x + 8)
            x = plane + term[t + 1].at + i;
            tap = _mm_set1_epi32(tap_pair(term + t + 1));
            FIR_MADD128(b0, b1, x)
            FIR_MADD128(b2, b3, x + 8)
            t += 2;
        } while (t < count);
        FIR_STORE128(dst + i, a0, a1, b0, b1);
        FIR_STORE128(dst + i + 8, a2, a3, b2, b3);
    }
}

static void interleave2_sse2(const int16_t *a, const int16_t *b, int16_t *dst, ptrdiff_t n)
{
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m128i x = LOAD128(a + i), y = LOAD128(b + i);
        STORE128(dst + 2 * i, _mm_unpacklo_epi16(x, y));
        STORE128(dst + 2 * i + 8, _mm_unpackhi_epi16(x, y));
    }
    interleave2_c(a + i, b + i, dst + 2 * i, n - i);
}

static void deinterleave2_sse2(const int16_t *src, int16_t *a, int16_t *b, ptrdiff_t n)
{
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m128i x = LOAD128(src + 2 * i), y = LOAD128(src + 2 * i + 8);
        STORE128(a + i, _mm_packs_epi32(_mm_srai_epi32(_mm_slli_epi32(x, 16), 16),
                                        _mm_srai_epi32(_mm_slli_epi32(y, 16), 16)));
        STORE128(b + i, _mm_packs_epi32(_mm_srai_epi32(x, 16), _mm_srai_epi32(y, 16)));
    }
    deinterleave2_c(src + 2 * i, a + i, b + i, n - i);
}

static void level_peak_sse2(const int16_t *src, ptrdiff_t n, int64_t *energy, int32_t *peak)
{
    const __m128i zero = _mm_setzero_si128();
    __m128i sum = zero, low = zero, high = zero;
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m128i x = LOAD128(src + i), square = _mm_madd_epi16(x, x); /* two full-scale squares need 32 unsigned bits */
        sum = _mm_add_epi64(sum, _mm_add_epi64(_mm_unpacklo_epi32(square, zero), _mm_unpackhi_epi32(square, zero)));
        low = _mm_min_epi16(low, x);
        high = _mm_max_epi16(high, x);
    }
    int64_t tail_energy, lane[2];
    int32_t tail_peak;
    int16_t least[8], most[8];
    level_peak_c(src + i, n - i, &tail_energy, &tail_peak);
    STORE128(lane, sum);
    STORE128(least, low);
    STORE128(most, high);
    for (int k = 0; k < 8; k++) {
        tail_peak = most[k] > tail_peak ? most[k] : tail_peak;
        tail_peak = -least[k] > tail_peak ? -least[k] : tail_peak;
    }
    *energy = tail_energy + lane[0] + lane[1];
    *peak = tail_peak;
}

static void mix_q15_sse2(int16_t *dst, const int16_t *src, ptrdiff_t n, int32_t gain_q15)
{
    ptrdiff_t i = 0;
    if (gain_q15 < 32768) {
        const __m128i gain = _mm_set1_epi16((int16_t)gain_q15);
        for (; i + 8 <= n; i += 8) {
            const __m128i x = LOAD128(src + i);
            const __m128i scaled = _mm_or_si128(_mm_slli_epi16(_mm_mulhi_epi16(x, gain), 1),
                                                _mm_srli_epi16(_mm_mullo_epi16(x, gain), 15));
            STORE128(dst + i, _mm_adds_epi16(LOAD128(dst + i), scaled));
        }
    } else { /* unity does not fit sixteen bits */
        for (; i + 8 <= n; i += 8)
            STORE128(dst + i, _mm_adds_epi16(LOAD128(dst + i), LOAD128(src + i)));
    }
    mix_q15_c(dst + i, src + i, n - i, gain_q15);
}

static const kernel_table KERNEL_SSE2 = {
    "sse2",        pcmu_to_s16_c,      pcma_to_s16_c,   s16_to_pcmu_c,   s16_to_pcma_c, fir_row_sse2, interleave2_sse2,
    interleave3_c, deinterleave2_sse2, deinterleave3_c, level_peak_sse2, mix_q15_sse2,  gain_ramp_c,
    base64_decode_c, base64_encode_c,
};

#endif
