// All operations for one instruction set, which the compiler is told as ISA.
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define VECTORS_OF(x) TEXT(simd/x.h)
#define JOIN_OF(a, b) a##b
#define JOIN(a, b) JOIN_OF(a, b)

#include VECTORS_OF(ISA)

#include "attention.h"
#include "experts.h"
#include "operations.h"
#include "packing.h"
#include "plain_linear.h"
#include "pointwise.h"
#include "quantize.h"
#include "resize.h"
#include "rows.h"

namespace bestiary {

using namespace ISA;

extern const Operation JOIN(operations_, ISA)[OPERATIONS];

// In the order of OperationNumber.
const Operation JOIN(operations_, ISA)[OPERATIONS] = {
    {{{panels_of, pack}}, 1},
    {{{panels_of, unpack}}, 1},
    {{{row_pieces, put_row}}, 1},
    {{{quantize_pieces, quantize}, {product_pieces, multiply_panels}}, 2},
    {{{widen_pieces, widen_row}, {plain_pieces, multiply_plain}}, 2},
    {{{norm_pieces, norm}}, 1},
    {{{add_norm_pieces, add_norm}}, 1},
    {{{add_pieces, add_rows}}, 1},
    {{{gate_pieces, gate}}, 1},
    {{{rotate_pieces, rotate}}, 1},
    {{{write_pieces, write_tokens}}, 1},
    {{{one_piece, free_areas}, {attention_pieces, attend}, {gathering_pieces, gather_parts}}, 3},
    {{{one_sorting, sort_slots}, {slot_pieces, prepare_slot}, {gate_up_pieces, multiply_gate_up}, {slot_pieces, gate_slot},
      {down_pieces, multiply_down}, {token_pieces, sum_choices}}, 6},
    {{{resize_span_pieces, put_spans}, {pass_pieces, pass}}, 2},
    {{{layer_norm_pieces, layer_norm}}, 1},
    {{{activate_pieces, activate}}, 1},
};

}  // namespace bestiary
