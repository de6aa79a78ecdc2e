/* edge_scanner.h: the framed scanner protocol, for the firmware of a scanner. C99, header only.
 *
 * No allocation, no global state, no recursion, no floating point; every loop is bounded by a size its caller
 * gave. The host's side, with the description of the protocol, is edge_runtime/scanners/framed.py.
 *
 *     uint8_t out[EDGE_SWEEP_FRAME_BYTES(256)];
 *     uint32_t size = edge_frame_sweep(out, sizeof out, sequence++, time_us, 433795000u, 980u, power, 256u);
 *     uart_write(out, size);
 *
 *     uint8_t buffer[64];
 *     edge_frame_reader reader = {buffer, sizeof buffer, 0u, 0u, 0u};
 *     if (edge_frame_read(&reader, uart_byte()) == EDGE_FRAME_READY) { ... reader.size bytes in buffer ... }
 *
 * Copyright 2026 the edge-runtime authors. SPDX-License-Identifier: Apache-2.0
 */
#ifndef EDGE_SCANNER_H
#define EDGE_SCANNER_H

#include <stdint.h>

enum { /* from the scanner */
    EDGE_SWEEP = 1,
    EDGE_HELLO = 2,
    EDGE_CONFIGURATION = 3,
    EDGE_BATTERY = 4
};
enum { /* to the scanner */
    EDGE_ASK_HELLO = 16,
    EDGE_CONFIGURE = 17,
    EDGE_PAUSE = 18,
    EDGE_RESUME = 19,
    EDGE_SLEEP = 20,
    EDGE_WAKE = 21,
    EDGE_ASK_BATTERY = 22
};

#define EDGE_FRAME_DELIMITER 0x0Au
#define EDGE_FRAME_HEAD_BYTES 7u /* type, sequence number, time */
#define EDGE_FRAME_OVERHEAD (EDGE_FRAME_HEAD_BYTES + 4u)

/* Room for a frame with that many bytes of payload: a code byte each 254, one more, and the delimiter. */
#define EDGE_FRAME_BYTES(payload) \
    ((payload) + EDGE_FRAME_OVERHEAD + ((payload) + EDGE_FRAME_OVERHEAD) / 254u + 2u)
#define EDGE_SWEEP_FRAME_BYTES(points) EDGE_FRAME_BYTES(14u + 2u * (points))

/* CRC-32 of IEEE 802.3, a nibble at a time: 64 bytes of table. Begin with 0. */
static inline uint32_t edge_crc32(uint32_t crc, uint8_t byte)
{
    static const uint32_t table[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u, 0x5005713Cu,
        0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu, 0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};
    crc = ~crc ^ byte;
    crc = (crc >> 4) ^ table[crc & 0xFu];
    crc = (crc >> 4) ^ table[crc & 0xFu];
    return ~crc;
}

/* A frame being written. */
typedef struct edge_frame_writer {
    uint8_t *out;
    uint32_t capacity;
    uint32_t size;    /* bytes of `out` in use */
    uint32_t code_at; /* where the length of the run being written goes */
    uint32_t crc;
    uint32_t overflow; /* not 0: `out` was too small, and the frame is void */
} edge_frame_writer;

static inline void edge_frame_out_(edge_frame_writer *w, uint32_t at, uint32_t byte)
{
    if (at < w->capacity) {
        w->out[at] = (uint8_t)(byte ^ EDGE_FRAME_DELIMITER);
    } else {
        w->overflow = 1u;
    }
}

static inline void edge_frame_end_run_(edge_frame_writer *w)
{
    edge_frame_out_(w, w->code_at, w->size - w->code_at);
    w->code_at = w->size;
    w->size++;
}

static inline void edge_frame_stuff_(edge_frame_writer *w, uint8_t byte)
{
    if (byte != 0u) {
        edge_frame_out_(w, w->size, byte);
        w->size++;
    }
    if ((byte == 0u) || (w->size - w->code_at == 255u)) {
        edge_frame_end_run_(w);
    }
}

/* Add bytes to the payload. */
static inline void edge_frame_put(edge_frame_writer *w, const uint8_t *bytes, uint32_t size)
{
    for (uint32_t i = 0u; i < size; i++) {
        w->crc = edge_crc32(w->crc, bytes[i]);
        edge_frame_stuff_(w, bytes[i]);
    }
}

/* Add a little-endian number of `size` bytes to the payload, 8 at most. */
static inline void edge_frame_put_number(edge_frame_writer *w, uint64_t value, uint32_t size)
{
    for (uint32_t i = 0u; i < size; i++) {
        const uint8_t byte = (uint8_t)((value >> (8u * i)) & 0xFFu);
        edge_frame_put(w, &byte, 1u);
    }
}

/* Begin a frame in `out`, which holds `capacity` bytes. */
static inline void edge_frame_begin(edge_frame_writer *w, uint8_t *out, uint32_t capacity, uint8_t type,
                                    uint16_t sequence, uint32_t time_us)
{
    w->out = out;
    w->capacity = capacity;
    w->size = 1u;
    w->code_at = 0u;
    w->crc = 0u;
    w->overflow = 0u;
    edge_frame_put_number(w, type, 1u);
    edge_frame_put_number(w, sequence, 2u);
    edge_frame_put_number(w, time_us, 4u);
}

/* End the frame; the bytes to send, 0 where `out` was too small. */
static inline uint32_t edge_frame_end(edge_frame_writer *w)
{
    const uint32_t crc = w->crc;
    edge_frame_put_number(w, crc, 4u);
    edge_frame_out_(w, w->code_at, w->size - w->code_at);
    edge_frame_out_(w, w->size, 0u); /* stuffed zero is the delimiter */
    w->size++;
    return (w->overflow != 0u) ? 0u : w->size;
}

/* A whole sweep, power in hundredths of a dBm; the bytes to send, 0 where `out` is too small. */
static inline uint32_t edge_frame_sweep(uint8_t *out, uint32_t capacity, uint16_t sequence, uint32_t time_us,
                                        uint64_t start_hz, uint32_t step_hz, const int16_t *power_cdbm,
                                        uint16_t points)
{
    edge_frame_writer w;
    edge_frame_begin(&w, out, capacity, (uint8_t)EDGE_SWEEP, sequence, time_us);
    edge_frame_put_number(&w, start_hz, 8u);
    edge_frame_put_number(&w, step_hz, 4u);
    edge_frame_put_number(&w, points, 2u);
    for (uint32_t i = 0u; i < points; i++) {
        edge_frame_put_number(&w, (uint16_t)power_cdbm[i], 2u);
    }
    return edge_frame_end(&w);
}

/* A frame being read: set buffer and capacity, the rest to 0. After EDGE_FRAME_READY the packet without its
 * CRC is in buffer[0 .. size - 1], until the next byte is read. */
typedef struct edge_frame_reader {
    uint8_t *buffer;
    uint32_t capacity;
    uint32_t size;
    uint32_t left; /* bytes before the next code */
    uint32_t state; /* 0: at a frame's first code; 1: in a frame; 2: in a run of 254; 3: a void frame; 4: ready */
} edge_frame_reader;

typedef enum edge_frame_result {
    EDGE_FRAME_NONE = 0,  /* more bytes are needed */
    EDGE_FRAME_READY = 1, /* a whole frame, its CRC is right */
    EDGE_FRAME_BAD = 2    /* a frame ended that is none: too long, cut, or changed */
} edge_frame_result;

static inline uint32_t edge_frame_u32_(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | ((uint32_t)bytes[1] << 8) | ((uint32_t)bytes[2] << 16) | ((uint32_t)bytes[3] << 24);
}

static inline void edge_frame_keep_(edge_frame_reader *r, uint8_t byte)
{
    if (r->size < r->capacity) {
        r->buffer[r->size] = byte;
        r->size++;
    } else {
        r->state = 3u;
    }
}

static inline edge_frame_result edge_frame_delimited_(edge_frame_reader *r)
{
    const uint32_t was = r->state;
    const uint32_t left = r->left;
    r->state = 4u;
    r->left = 0u;
    if (was == 0u) {
        return EDGE_FRAME_NONE; /* an empty frame is no error: senders may flush with a delimiter */
    }
    if ((was == 3u) || (left != 0u) || (r->size < EDGE_FRAME_OVERHEAD)) {
        return EDGE_FRAME_BAD;
    }
    uint32_t crc = 0u;
    r->size -= 4u;
    for (uint32_t i = 0u; i < r->size; i++) {
        crc = edge_crc32(crc, r->buffer[i]);
    }
    return (crc == edge_frame_u32_(&r->buffer[r->size])) ? EDGE_FRAME_READY : EDGE_FRAME_BAD;
}

/* Take one byte from the wire. */
static inline edge_frame_result edge_frame_read(edge_frame_reader *r, uint8_t wire)
{
    const uint8_t byte = (uint8_t)(wire ^ EDGE_FRAME_DELIMITER);
    if (r->state == 4u) {
        r->size = 0u;
        r->state = 0u;
    }
    if (byte == 0u) {
        return edge_frame_delimited_(r);
    }
    if (r->state == 3u) {
        return EDGE_FRAME_NONE;
    }
    if (r->left == 0u) { /* a code: the run before it ended, with a zero unless it was a full one */
        if (r->state == 1u) {
            edge_frame_keep_(r, 0u);
        }
        r->left = (uint32_t)byte - 1u;
        if (r->state != 3u) {
            r->state = (byte == 0xFFu) ? 2u : 1u;
        }
    } else {
        r->left--;
        edge_frame_keep_(r, byte);
    }
    return EDGE_FRAME_NONE;
}

#endif
