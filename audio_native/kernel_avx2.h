/* AVX2, compiled by function attribute so that the rest of the file stays baseline x86-64. */
#ifndef TALKSPURT_KERNEL_AVX2_H
#define TALKSPURT_KERNEL_AVX2_H

#include "kernel_sse2.h"

#define AVX2 __attribute__((target("avx2")))
#define LOAD256(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define STORE256(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), (v))

#include "kernel_base64_avx2.h"

/* Sixteen codes: the nibbles index tables of step and base, one multiply joins them. The last block overlaps the one
 * before it, so n >= 16 needs no scalar tail. */

AVX2 ALWAYS_INLINE void pcmu_to_s16_16(const uint8_t *src, int16_t *dst)
{
    const __m128i steps = _mm_setr_epi8(-128, 64, 32, 16, 8, 4, 2, 1, -128, 64, 32, 16, 8, 4, 2, 1);
    const __m128i bases = _mm_setr_epi8(-4, -12, -20, -28, -36, -44, -52, -60, -68, -76, -84, -92, -100, -108, -116, -124);
    const __m128i code = LOAD128(src), nibble = _mm_set1_epi8(15);
    const __m128i step = _mm_shuffle_epi8(steps, _mm_and_si128(_mm_srli_epi16(code, 4), nibble));
    const __m128i base = _mm_shuffle_epi8(bases, _mm_and_si128(code, nibble));
    const __m256i value = _mm256_mullo_epi16(_mm256_cvtepu8_epi16(step), _mm256_cvtepu8_epi16(base));
    const __m256i negative = _mm256_sub_epi16(_mm256_set1_epi16(132), value);
    STORE256(dst, _mm256_sign_epi16(negative, _mm256_cvtepi8_epi16(_mm_or_si128(code, _mm_set1_epi8(1)))));
}

AVX2 ALWAYS_INLINE void pcma_to_s16_16(const uint8_t *src, int16_t *dst)
{
    const __m128i steps = _mm_setr_epi8(1, 1, 2, 4, 8, 16, 32, 64, 1, 1, 2, 4, 8, 16, 32, 64);
    const __m128i leads = _mm_setr_epi8(0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1);
    const __m128i code = _mm_xor_si128(LOAD128(src), _mm_set1_epi8(0x55)), nibble = _mm_set1_epi8(15);
    const __m128i segment = _mm_and_si128(_mm_srli_epi16(code, 4), nibble);
    const __m256i step = _mm256_cvtepu8_epi16(_mm_shuffle_epi8(steps, segment));
    const __m256i lead = _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_shuffle_epi8(leads, segment)), 8);
    const __m256i low = _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_and_si128(code, nibble)), 4);
    const __m256i base = _mm256_add_epi16(_mm256_or_si256(lead, low), _mm256_set1_epi16(8));
    const __m256i negative = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_mullo_epi16(step, base));
    STORE256(dst, _mm256_sign_epi16(negative, _mm256_cvtepi8_epi16(_mm_or_si128(code, _mm_set1_epi8(1)))));
}

/* floor(log2) of a byte in each word, 0 for 0: the larger of what its two nibbles say. */
AVX2 ALWAYS_INLINE __m256i log2_words(__m256i byte)
{
    const __m256i low = _mm256_setr_epi8(0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3,
                                         3, 3, 3, 3);
    const __m256i high = _mm256_setr_epi8(0, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7, 0, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7,
                                          7, 7, 7, 7);
    return _mm256_max_epi16(_mm256_shuffle_epi8(low, _mm256_and_si256(byte, _mm256_set1_epi16(15))),
                            _mm256_shuffle_epi8(high, _mm256_srli_epi16(byte, 4)));
}

AVX2 ALWAYS_INLINE void store_codes(uint8_t *dst, __m256i words)
{
    STORE128(dst, _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

AVX2 ALWAYS_INLINE void s16_to_pcmu_16(const int16_t *src, uint8_t *dst)
{
    const __m256i scale = _mm256_setr_epi8(-128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, -128, 64, 32, 16, 8, 4, 2,
                                           1, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i x = LOAD256(src), byte = _mm256_set1_epi16(255);
    const __m256i m = _mm256_add_epi16(
        _mm256_min_epi16(_mm256_abs_epi16(_mm256_srai_epi16(x, 2)), _mm256_set1_epi16(8158)), _mm256_set1_epi16(33));
    const __m256i segment = log2_words(_mm256_srli_epi16(m, 5));
    const __m256i up = _mm256_and_si256(_mm256_shuffle_epi8(scale, segment), byte);
    /* The leading one now stands at bit 12; it adds 16, which the constant takes away. */
    const __m256i mantissa = _mm256_srli_epi16(_mm256_mullo_epi16(m, up), 8);
    const __m256i code = _mm256_add_epi16(_mm256_slli_epi16(segment, 4), _mm256_sub_epi16(mantissa, _mm256_set1_epi16(16)));
    const __m256i sign = _mm256_and_si256(_mm256_srai_epi16(x, 15), _mm256_set1_epi16(0x80));
    store_codes(dst, _mm256_xor_si256(_mm256_xor_si256(code, byte), sign));
}

AVX2 ALWAYS_INLINE void s16_to_pcma_16(const int16_t *src, uint8_t *dst)
{
    const __m256i scale = _mm256_setr_epi8(64, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 64, 64, 32, 16, 8, 4, 2, 1, 0, 0,
                                           0, 0, 0, 0, 0, 0);
    const __m256i x = LOAD256(src), negative = _mm256_srai_epi16(x, 15);
    const __m256i m = _mm256_xor_si256(_mm256_srai_epi16(x, 3), negative);
    const __m256i segment = log2_words(_mm256_srli_epi16(m, 4));
    const __m256i up = _mm256_and_si256(_mm256_shuffle_epi8(scale, segment), _mm256_set1_epi16(255));
    const __m256i mantissa = _mm256_and_si256(_mm256_srli_epi16(_mm256_mullo_epi16(m, up), 7), _mm256_set1_epi16(15));
    const __m256i code = _mm256_or_si256(_mm256_slli_epi16(segment, 4), mantissa);
    const __m256i sign = _mm256_and_si256(negative, _mm256_set1_epi16(0x80));
    store_codes(dst, _mm256_xor_si256(_mm256_xor_si256(code, _mm256_set1_epi16(0xD5)), sign));
}

#define BLOCKS_OF_16(name, from, to)                                                                                   \
    AVX2 static void name##_avx2(const from *src, to *dst, ptrdiff_t n)                                                \
    {                                                                                                                  \
        if (n < 16) {                                                                                                  \
            name##_c(src, dst, n);                                                                                     \
            return;                                                                                                    \
        }                                                                                                              \
        for (ptrdiff_t i = 0; i < n - 16; i += 16)                                                                     \
            name##_16(src + i, dst + i);                                                                               \
        name##_16(src + n - 16, dst + n - 16);                                                                         \
    }

BLOCKS_OF_16(pcmu_to_s16, uint8_t, int16_t)
BLOCKS_OF_16(pcma_to_s16, uint8_t, int16_t)
BLOCKS_OF_16(s16_to_pcmu, int16_t, uint8_t)
BLOCKS_OF_16(s16_to_pcma, int16_t, uint8_t)

#define FIR_MADD256(even, odd, x)                                                                                      \
    even = _mm256_add_epi32(even, _mm256_madd_epi16(LOAD256(x), tap));                                                 \
    odd = _mm256_add_epi32(odd, _mm256_madd_epi16(LOAD256((x) + 1), tap));

#define FIR_HALF256(a, b)                                                                                              \
    _mm256_sra_epi32(_mm256_add_epi32(_mm256_and_si256(a, b), _mm256_srai_epi32(_mm256_xor_si256(a, b), 1)), by)

#define FIR_STORE256(at, ae, ao, be, bo)                                                                               \
    STORE256(at, _mm256_shuffle_epi8(_mm256_packs_epi32(FIR_HALF256(ae, be), FIR_HALF256(ao, bo)), zip))

AVX2 static void fir_row_avx2(const int16_t *plane, const fir_term *term, ptrdiff_t count, int shift, int16_t *dst,
                              ptrdiff_t n)
{
    const __m128i by = _mm_cvtsi32_si128(shift - 1);
    const __m256i round = _mm256_set1_epi32(1 << (shift - 1));
    const __m256i zip = _mm256_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15, 0, 1, 8, 9, 2, 3, 10, 11, 4,
                                         5, 12, 13, 6, 7, 14, 15);
    for (ptrdiff_t i = 0; i < n; i += FIR_STEP) {
        __m256i a0 = round, a1 = round, a2 = round, a3 = round;
        __m256i b0 = _mm256_setzero_si256(), b1 = b0, b2 = b0, b3 = b0;
        ptrdiff_t t = 0;
        do {
            const int16_t *x = plane + term[t].at + i;
            __m256i tap = _mm256_set1_epi32(tap_pair(term + t));
            FIR_MADD256(a0, a1, x)
            FIR_MADD256(a2, a3, x + 16)
            x = plane + term[t + 1].at + i;
            tap = _mm256_set1_epi32(tap_pair(term + t + 1));
            FIR_MADD256(b0, b1, x)
            FIR_MADD256(b2, b3, x + 16)
            t += 2;
        } while (t < count);
        FIR_STORE256(dst + i, a0, a1, b0, b1);
        FIR_STORE256(dst + i + 16, a2, a3, b2, b3);
    }
}

AVX2 static void interleave2_avx2(const int16_t *a, const int16_t *b, int16_t *dst, ptrdiff_t n)
{
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256i x = LOAD256(a + i), y = LOAD256(b + i);
        const __m256i low = _mm256_unpacklo_epi16(x, y), high = _mm256_unpackhi_epi16(x, y);
        STORE256(dst + 2 * i, _mm256_permute2x128_si256(low, high, 0x20));
        STORE256(dst + 2 * i + 16, _mm256_permute2x128_si256(low, high, 0x31));
    }
    interleave2_c(a + i, b + i, dst + 2 * i, n - i);
}

AVX2 static void deinterleave2_avx2(const int16_t *src, int16_t *a, int16_t *b, ptrdiff_t n)
{
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256i x = LOAD256(src + 2 * i), y = LOAD256(src + 2 * i + 16);
        const __m256i even = _mm256_packs_epi32(_mm256_srai_epi32(_mm256_slli_epi32(x, 16), 16),
                                                _mm256_srai_epi32(_mm256_slli_epi32(y, 16), 16));
        const __m256i odd = _mm256_packs_epi32(_mm256_srai_epi32(x, 16), _mm256_srai_epi32(y, 16));
        STORE256(a + i, _mm256_permute4x64_epi64(even, 0xD8));
        STORE256(b + i, _mm256_permute4x64_epi64(odd, 0xD8));
    }
    deinterleave2_c(src + 2 * i, a + i, b + i, n - i);
}

/* 3 x 8 words: word j of a plane stands at place (3j + plane) mod 8 of one of three registers, so each plane is two
 * blends and one shuffle away. Masks: which places of a register belong to a plane. */
enum { PLACES_036 = 0x49, PLACES_147 = 0x92, PLACES_25 = 0x24 };

#define WORD(k) 2 * (k), 2 * (k) + 1
#define WORDS(a, b, c, d, e, f, g, h)                                                                                  \
    _mm_setr_epi8(WORD(a), WORD(b), WORD(c), WORD(d), WORD(e), WORD(f), WORD(g), WORD(h))
#define BLEND3(x, y, z, of_y, of_z) _mm_blend_epi16(_mm_blend_epi16(x, y, of_y), z, of_z)

AVX2 static void deinterleave3_avx2(const int16_t *src, int16_t *a, int16_t *b, int16_t *c, ptrdiff_t n)
{
    const __m128i to_a = WORDS(0, 3, 6, 1, 4, 7, 2, 5), to_b = WORDS(1, 4, 7, 2, 5, 0, 3, 6),
                  to_c = WORDS(2, 5, 0, 3, 6, 1, 4, 7);
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m128i x = LOAD128(src + 3 * i), y = LOAD128(src + 3 * i + 8), z = LOAD128(src + 3 * i + 16);
        STORE128(a + i, _mm_shuffle_epi8(BLEND3(x, y, z, PLACES_147, PLACES_25), to_a));
        STORE128(b + i, _mm_shuffle_epi8(BLEND3(x, y, z, PLACES_25, PLACES_036), to_b));
        STORE128(c + i, _mm_shuffle_epi8(BLEND3(x, y, z, PLACES_036, PLACES_147), to_c));
    }
    deinterleave3_c(src + 3 * i, a + i, b + i, c + i, n - i);
}

AVX2 static void interleave3_avx2(const int16_t *a, const int16_t *b, const int16_t *c, int16_t *dst, ptrdiff_t n)
{
    const __m128i of_a = WORDS(0, 3, 6, 1, 4, 7, 2, 5), of_b = WORDS(5, 0, 3, 6, 1, 4, 7, 2),
                  of_c = WORDS(2, 5, 0, 3, 6, 1, 4, 7);
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m128i x = _mm_shuffle_epi8(LOAD128(a + i), of_a), y = _mm_shuffle_epi8(LOAD128(b + i), of_b),
                      z = _mm_shuffle_epi8(LOAD128(c + i), of_c);
        STORE128(dst + 3 * i, BLEND3(x, y, z, PLACES_147, PLACES_25));
        STORE128(dst + 3 * i + 8, BLEND3(x, y, z, PLACES_25, PLACES_036));
        STORE128(dst + 3 * i + 16, BLEND3(x, y, z, PLACES_036, PLACES_147));
    }
    interleave3_c(a + i, b + i, c + i, dst + 3 * i, n - i);
}

AVX2 static void level_peak_avx2(const int16_t *src, ptrdiff_t n, int64_t *energy, int32_t *peak)
{
    const __m256i low_word = _mm256_set1_epi64x(0xFFFFFFFF);
    __m256i sum = _mm256_setzero_si256(), low = sum, high = sum;
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256i x = LOAD256(src + i), square = _mm256_madd_epi16(x, x); /* 32 unsigned bits, see SSE2 */
        sum = _mm256_add_epi64(sum, _mm256_add_epi64(_mm256_and_si256(square, low_word), _mm256_srli_epi64(square, 32)));
        low = _mm256_min_epi16(low, x);
        high = _mm256_max_epi16(high, x);
    }
    int64_t tail_energy;
    int32_t tail_peak;
    level_peak_c(src + i, n - i, &tail_energy, &tail_peak);
    const __m128i pair = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    *energy = tail_energy + _mm_cvtsi128_si64(pair) + _mm_extract_epi64(pair, 1);
    /* |x| as unsigned words, so that -32768 keeps its magnitude; minpos finds the largest as the least complement. */
    const __m256i magnitude = _mm256_max_epu16(_mm256_abs_epi16(low), high);
    const __m128i half = _mm_max_epu16(_mm256_castsi256_si128(magnitude), _mm256_extracti128_si256(magnitude, 1));
    const __m128i least = _mm_minpos_epu16(_mm_xor_si128(half, _mm_set1_epi16(-1)));
    const int32_t most = 0xFFFF ^ _mm_extract_epi16(least, 0);
    *peak = most > tail_peak ? most : tail_peak;
}

AVX2 static void mix_q15_avx2(int16_t *dst, const int16_t *src, ptrdiff_t n, int32_t gain_q15)
{
    ptrdiff_t i = 0;
    if (gain_q15 < 32768) {
        const __m256i gain = _mm256_set1_epi16((int16_t)gain_q15);
        for (; i + 16 <= n; i += 16) {
            const __m256i x = LOAD256(src + i);
            const __m256i scaled = _mm256_or_si256(_mm256_slli_epi16(_mm256_mulhi_epi16(x, gain), 1),
                                                   _mm256_srli_epi16(_mm256_mullo_epi16(x, gain), 15));
            STORE256(dst + i, _mm256_adds_epi16(LOAD256(dst + i), scaled));
        }
    } else {
        for (; i + 16 <= n; i += 16)
            STORE256(dst + i, _mm256_adds_epi16(LOAD256(dst + i), LOAD256(src + i)));
    }
    mix_q15_c(dst + i, src + i, n - i, gain_q15);
}

AVX2 static void gain_ramp_avx2(int16_t *dst, ptrdiff_t n, int32_t from_q15, int32_t step_q30)
{
    gain_ramp_body(dst, n, from_q15, step_q30);
}

static const kernel_table KERNEL_AVX2 = {
    "avx2",           pcmu_to_s16_avx2,   pcma_to_s16_avx2,   s16_to_pcmu_avx2, s16_to_pcma_avx2, fir_row_avx2,   interleave2_avx2,
    interleave3_avx2, deinterleave2_avx2, deinterleave3_avx2, level_peak_avx2,  mix_q15_avx2,     gain_ramp_avx2,
    base64_decode_avx2, base64_encode_avx2,
};

#endif
