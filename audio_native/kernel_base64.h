/* Strict base64 in plain C (RFC 4648, section 4). */
#ifndef TALKSPURT_KERNEL_BASE64_H
#define TALKSPURT_KERNEL_BASE64_H

#include <stddef.h>
#include <stdint.h>

static const char BASE64_LETTERS[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The six bits of a letter with BASE64_GOOD set; 0 for every other byte. */
#define BASE64_GOOD 64
#define G(value) (BASE64_GOOD | (value))
static const uint8_t BASE64_VALUES[256] = {
    ['A'] = G(0),  ['B'] = G(1),  ['C'] = G(2),  ['D'] = G(3),  ['E'] = G(4),  ['F'] = G(5),  ['G'] = G(6),
    ['H'] = G(7),  ['I'] = G(8),  ['J'] = G(9),  ['K'] = G(10), ['L'] = G(11), ['M'] = G(12), ['N'] = G(13),
    ['O'] = G(14), ['P'] = G(15), ['Q'] = G(16), ['R'] = G(17), ['S'] = G(18), ['T'] = G(19), ['U'] = G(20),
    ['V'] = G(21), ['W'] = G(22), ['X'] = G(23), ['Y'] = G(24), ['Z'] = G(25), ['a'] = G(26), ['b'] = G(27),
    ['c'] = G(28), ['d'] = G(29), ['e'] = G(30), ['f'] = G(31), ['g'] = G(32), ['h'] = G(33), ['i'] = G(34),
    ['j'] = G(35), ['k'] = G(36), ['l'] = G(37), ['m'] = G(38), ['n'] = G(39), ['o'] = G(40), ['p'] = G(41),
    ['q'] = G(42), ['r'] = G(43), ['s'] = G(44), ['t'] = G(45), ['u'] = G(46), ['v'] = G(47), ['w'] = G(48),
    ['x'] = G(49), ['y'] = G(50), ['z'] = G(51), ['0'] = G(52), ['1'] = G(53), ['2'] = G(54), ['3'] = G(55),
    ['4'] = G(56), ['5'] = G(57), ['6'] = G(58), ['7'] = G(59), ['8'] = G(60), ['9'] = G(61), ['+'] = G(62),
    ['/'] = G(63),
};
#undef G

/* Four letters to 24 bits; *good loses BASE64_GOOD when one of them is none. */
static inline uint32_t base64_quad(const uint8_t *src, uint8_t *good)
{
    const uint8_t a = BASE64_VALUES[src[0]], b = BASE64_VALUES[src[1]];
    const uint8_t c = BASE64_VALUES[src[2]], d = BASE64_VALUES[src[3]];
    *good &= a & b & c & d;
    return (uint32_t)(a & 63) << 18 | (uint32_t)(b & 63) << 12 | (uint32_t)(c & 63) << 6 | (d & 63);
}

/* From source byte i and destination byte o on: the whole groups, then the last one, which may be padded. */
static ptrdiff_t base64_decode_rest(const uint8_t *src, ptrdiff_t n, uint8_t *dst, ptrdiff_t i, ptrdiff_t o)
{
    uint8_t good = BASE64_GOOD, last[4] = {'A', 'A', 'A', 'A'};
    uint32_t word;
    ptrdiff_t letters = 4;
    for (; i + 4 < n; i += 4, o += 3) {
        word = base64_quad(src + i, &good);
        dst[o] = (uint8_t)(word >> 16);
        dst[o + 1] = (uint8_t)(word >> 8);
        dst[o + 2] = (uint8_t)word;
    }
    if (src[n - 1] == '=')
        letters = src[n - 2] == '=' ? 2 : 3;
    for (ptrdiff_t k = 0; k < letters; k++)
        last[k] = src[i + k];
    word = base64_quad(last, &good);
    for (ptrdiff_t k = 0; k < letters - 1; k++)
        dst[o + k] = (uint8_t)(word >> (16 - 8 * k));
    return good ? o + letters - 1 : -1;
}

static ptrdiff_t base64_decode_c(const uint8_t *src, ptrdiff_t n, uint8_t *dst)
{
    if (n == 0 || n % 4)
        return n ? -1 : 0;
    return base64_decode_rest(src, n, dst, 0, 0);
}

static void base64_encode_rest(const uint8_t *src, ptrdiff_t n, uint8_t *dst)
{
    ptrdiff_t i = 0;
    for (; i + 3 <= n; i += 3, dst += 4) {
        const uint32_t word = (uint32_t)src[i] << 16 | (uint32_t)src[i + 1] << 8 | src[i + 2];
        dst[0] = (uint8_t)BASE64_LETTERS[word >> 18];
        dst[1] = (uint8_t)BASE64_LETTERS[word >> 12 & 63];
        dst[2] = (uint8_t)BASE64_LETTERS[word >> 6 & 63];
        dst[3] = (uint8_t)BASE64_LETTERS[word & 63];
    }
    if (i < n) {
        const int two = i + 1 < n;
        const uint32_t word = (uint32_t)src[i] << 16 | (two ? (uint32_t)src[i + 1] << 8 : 0);
        dst[0] = (uint8_t)BASE64_LETTERS[word >> 18];
        dst[1] = (uint8_t)BASE64_LETTERS[word >> 12 & 63];
        dst[2] = two ? (uint8_t)BASE64_LETTERS[word >> 6 & 63] : '=';
        dst[3] = '=';
    }
}

static void base64_encode_c(const uint8_t *src, ptrdiff_t n, uint8_t *dst)
{
    base64_encode_rest(src, n, dst);
}

#endif
