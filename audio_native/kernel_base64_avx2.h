/* Strict base64, 32 letters at a time. Included by kernel_avx2.h.
 *
 * The alphabet in rows of sixteen: 2 holds + and /, 3 the digits, 4 to 7 the letters; all other rows are empty. One
 * shuffle by the low nibble tells in which rows that column is empty (a bit a row), one by the high nibble which row
 * it is: where both agree the byte is no letter. A third one gives what to add for the six bits.
 * Source of the method: W. Mula, D. Lemire, "Faster Base64 Encoding and Decoding using AVX2 Instructions", 2018. */
#ifndef TALKSPURT_KERNEL_BASE64_AVX2_H
#define TALKSPURT_KERNEL_BASE64_AVX2_H

#include "kernel_base64.h"

/* Bits of the rows: 2 is 1, 3 is 2, 4 and 6 are 4 (both lack column 0), 5 and 7 are 8 (both end at column 10), the
 * others are 16, which every column has. */
#define ROW_BITS 16, 16, 1, 2, 4, 8, 4, 8, 16, 16, 16, 16, 16, 16, 16, 16
#define EMPTY_0 (16 | 1 | 4)     /* column 0: no letter in rows 2, 4, 6 */
#define EMPTY_1_9 (16 | 1)       /* columns 1 to 9: only row 2 has none */
#define EMPTY_10 (16 | 1 | 2)    /* 10: rows 2 and 3 */
#define EMPTY_11 (16 | 2 | 8)    /* 11: + stands here */
#define EMPTY_12_14 (16 | 1 | 2 | 8)
#define EMPTY_15 (16 | 2 | 8)    /* 15: / stands here */
#define EMPTY_COLUMNS                                                                                                  \
    EMPTY_0, EMPTY_1_9, EMPTY_1_9, EMPTY_1_9, EMPTY_1_9, EMPTY_1_9, EMPTY_1_9, EMPTY_1_9, EMPTY_1_9, EMPTY_1_9,        \
        EMPTY_10, EMPTY_11, EMPTY_12_14, EMPTY_12_14, EMPTY_12_14, EMPTY_15
/* What to add in each row; row 2 is for +, / goes to row 1 instead. */
#define ROW_OFFSETS 0, 63 - '/', 62 - '+', 52 - '0', -'A', -'A', 26 - 'a', 26 - 'a', 0, 0, 0, 0, 0, 0, 0, 0

/* Collects in *wrong what is no letter; the result's lanes hold 12 bytes each. */
AVX2 ALWAYS_INLINE __m256i base64_decode_32(const uint8_t *src, __m256i *wrong)
{
    const __m256i row_bits = _mm256_setr_epi8(ROW_BITS, ROW_BITS);
    const __m256i empty = _mm256_setr_epi8(EMPTY_COLUMNS, EMPTY_COLUMNS);
    const __m256i offsets = _mm256_setr_epi8(ROW_OFFSETS, ROW_OFFSETS);
    const __m256i text = LOAD256(src), nibble = _mm256_set1_epi8(15);
    const __m256i row = _mm256_and_si256(_mm256_srli_epi16(text, 4), nibble);
    const __m256i column = _mm256_and_si256(text, nibble);
    const __m256i slash = _mm256_cmpeq_epi8(text, _mm256_set1_epi8('/')); /* -1 there: row 2 becomes 1 */
    *wrong = _mm256_or_si256(*wrong, _mm256_and_si256(_mm256_shuffle_epi8(empty, column),
                                                      _mm256_shuffle_epi8(row_bits, row)));
    const __m256i six = _mm256_add_epi8(text, _mm256_shuffle_epi8(offsets, _mm256_add_epi8(row, slash)));
    /* Four times six bits to twelve twice, to twenty-four; then the bytes of each in order. */
    const __m256i twelve = _mm256_maddubs_epi16(six, _mm256_set1_epi32(0x01400140));
    const __m256i whole = _mm256_madd_epi16(twelve, _mm256_set1_epi32(0x00011000));
    return _mm256_shuffle_epi8(whole, _mm256_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1, 2, 1, 0,
                                                       6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1));
}

AVX2 static ptrdiff_t base64_decode_avx2(const uint8_t *src, ptrdiff_t n, uint8_t *dst)
{
    __m256i wrong = _mm256_setzero_si256();
    ptrdiff_t i = 0, o = 0;
    if (n % 4)
        return -1;
    /* Safety: the second store ends 28 bytes after o; 40 letters and more make at least 30 - 2. */
    for (; n - i >= 40; i += 32, o += 24) {
        const __m256i bytes = base64_decode_32(src + i, &wrong);
        STORE128(dst + o, _mm256_castsi256_si128(bytes));
        STORE128(dst + o + 12, _mm256_extracti128_si256(bytes, 1));
    }
    if (!_mm256_testz_si256(wrong, wrong))
        return -1;
    _mm256_zeroupper();
    return n ? base64_decode_rest(src, n, dst, i, o) : 0;
}

AVX2 static void base64_encode_avx2(const uint8_t *src, ptrdiff_t n, uint8_t *dst)
{
    /* By six bits less 51, at least 0: 0 to 51 fall together and are told apart by 13 for the capitals. */
    const __m256i offsets = _mm256_setr_epi8('a' - 26, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52,
                                             '0' - 52, '0' - 52, '0' - 52, '0' - 52, '+' - 62, '/' - 63, 'A', 0, 0,
                                             'a' - 26, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52,
                                             '0' - 52, '0' - 52, '0' - 52, '0' - 52, '+' - 62, '/' - 63, 'A', 0, 0);
    const __m256i order = _mm256_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10, 1, 0, 2, 1, 4, 3, 5, 4, 7,
                                           6, 8, 7, 10, 9, 11, 10);
    ptrdiff_t i = 0;
    /* Safety: 28 bytes are read for the 24 that are coded. */
    for (; n - i >= 28; i += 24, dst += 32) {
        const __m256i raw = _mm256_inserti128_si256(_mm256_castsi128_si256(LOAD128(src + i)), LOAD128(src + i + 12), 1);
        const __m256i bytes = _mm256_shuffle_epi8(raw, order);
        /* Bytes b a c b: multiplying moves each group of six bits to the bottom of its byte. */
        const __m256i outer = _mm256_mulhi_epu16(_mm256_and_si256(bytes, _mm256_set1_epi32(0x0FC0FC00)),
                                                 _mm256_set1_epi32(0x04000040));
        const __m256i inner = _mm256_mullo_epi16(_mm256_and_si256(bytes, _mm256_set1_epi32(0x003F03F0)),
                                                 _mm256_set1_epi32(0x01000010));
        const __m256i six = _mm256_or_si256(outer, inner);
        const __m256i capital = _mm256_cmpgt_epi8(_mm256_set1_epi8(26), six);
        const __m256i kind = _mm256_or_si256(_mm256_subs_epu8(six, _mm256_set1_epi8(51)),
                                             _mm256_and_si256(capital, _mm256_set1_epi8(13)));
        STORE256(dst, _mm256_add_epi8(six, _mm256_shuffle_epi8(offsets, kind)));
    }
    _mm256_zeroupper(); /* gcc 12 leaves it out before this tail call, and the SSE code after us then crawls */
    base64_encode_rest(src + i, n - i, dst);
}

#endif
