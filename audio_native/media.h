/* What media.pyx needs of C. */
#ifndef TALKSPURT_MEDIA_H
#define TALKSPURT_MEDIA_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline int text_is(const uint8_t *text, const uint8_t *expected, ptrdiff_t n)
{
    uint64_t a, b, differs = 0;
    ptrdiff_t i = 0;
    if (n < 8)
        return memcmp(text, expected, (size_t)n) == 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&a, text + i, 8), memcpy(&b, expected + i, 8);
        differs |= a ^ b;
    }
    /* The last eight overlap what has been looked at. */
    memcpy(&a, text + n - 8, 8), memcpy(&b, expected + n - 8, 8);
    return (differs | (a ^ b)) == 0;
}

#endif
