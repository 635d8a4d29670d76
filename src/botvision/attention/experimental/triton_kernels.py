"""Triton kernels of decomposed attention; ``triton_attention`` launches them.

FlashAttention-2 (Dao 2023, arXiv 2307.08691) whose key tiles are pieces of the map: ROWS map rows
x COLUMNS map columns. The position bias of a tile is then one vector per map row plus one per map
column, broadcast: no bias is gathered per logit, and the sums over a row or a column that the
biases' gradients ask for are sums along a tile's axis.

No kernel uses atomics: every number is written by one program, so gradients are deterministic.

Shape legend: M = queries of a block, R = ROWS, C = COLUMNS, T = R x C keys of a tile,
D and DV = widths of a head, padded to the powers of two BLOCK_D and BLOCK_DV.
"""

# Triton reads the parameters' annotations itself and knows none but constexpr, whose names the
# field writes in capitals.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-calls=False
# ruff: noqa: N803

import triton  # type: ignore[import-untyped,import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-untyped,import-not-found,unused-ignore]

# exp2 is one instruction, exp is two.
LOG2_E = tl.constexpr(1.4426950408889634)
INFINITY = tl.constexpr(float("inf"))


@triton.jit
def _group_offset(group, heads, stride_batch, stride_head):
    """Where (batch, head) number ``group`` begins, in 64 bits: large tensors exceed 32."""
    batch = (group // heads).to(tl.int64)
    head = (group % heads).to(tl.int64)
    return batch * stride_batch + head * stride_head


@triton.jit
def _load_heads(base, positions, stride, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Vectors of ``positions``, [positions, BLOCK_D], zero beyond D."""
    channels = tl.arange(0, BLOCK_D)[None, :]
    pointers = base + positions.to(tl.int64)[:, None] * stride + channels
    inside = channels < D
    return tl.load(pointers) if BLOCK_D == D else tl.load(pointers, mask=inside, other=0.0)


@triton.jit
def _store_heads(base, positions, inside, values, stride, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """The inverse of ``_load_heads`` for the positions that are ``inside``."""
    channels = tl.arange(0, BLOCK_D)[None, :]
    pointers = base + positions.to(tl.int64)[:, None] * stride + channels
    mask = inside[:, None] & (channels < D)
    tl.store(pointers, values.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _load_bias(base, queries, cells, side, stride, HAS_BIAS: tl.constexpr):
    """Bias [queries, cells] in float32, or [1, cells] of zeros; -inf beyond the map's ``side``.

    That -inf is the one mask a padded tile needs: such a key gets no weight and no gradient.
    """
    inside = (cells < side)[None, :]
    if HAS_BIAS:
        pointers = base + queries.to(tl.int64)[:, None] * stride + cells[None, :]
        bias = tl.load(pointers, mask=inside, other=-INFINITY).to(tl.float32)
    else:
        bias = tl.where(inside, 0.0, -INFINITY)
    return bias


@triton.jit
def _join_biases(by_row, by_column, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[M or 1, R] and [M or 1, C] to [M or 1, T]."""
    if ROWS == 1:
        bias = by_row + by_column
    else:
        bias = by_row[:, :, None] + by_column[:, None, :]
        bias = tl.reshape(bias, [bias.shape[0], ROWS * COLUMNS])
    return bias


@triton.jit
def _tile_positions(row, column, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Positions of a tile's keys, and which are inside; the others name a key that exists."""
    within = tl.arange(0, ROWS * COLUMNS)
    rows = row + within // COLUMNS
    columns = column + within % COLUMNS
    inside = (rows < height) & (columns < width)
    return tl.minimum(rows, height - 1) * width + tl.minimum(columns, width - 1), inside


@triton.jit
def forward_kernel(
    q, k, v, bias_h, bias_w, out, log_sum_exp,
    q_batch, q_head, q_position, k_batch, k_head, k_position, v_batch, v_head, v_position,
    bias_h_batch, bias_h_head, bias_h_position, bias_w_batch, bias_w_head, bias_w_position,
    heads, height, width, scale,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CONTENT: tl.constexpr, HAS_BIAS_H: tl.constexpr, HAS_BIAS_W: tl.constexpr,
):  # fmt: skip
    """One program: the output and the log-sum-exp (base 2) of one block of queries."""
    n = height * width
    blocks = tl.cdiv(n, BLOCK_M)
    group = tl.program_id(0) // blocks
    numbers = (tl.program_id(0) % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    # What lies beyond the last query repeats it and is not stored.
    queries = tl.minimum(numbers, n - 1)
    q += _group_offset(group, heads, q_batch, q_head)
    k += _group_offset(group, heads, k_batch, k_head)
    v += _group_offset(group, heads, v_batch, v_head)
    if HAS_BIAS_H:
        bias_h += _group_offset(group, heads, bias_h_batch, bias_h_head)
    if HAS_BIAS_W:
        bias_w += _group_offset(group, heads, bias_w_batch, bias_w_head)
    if CONTENT:
        q_block = _load_heads(q, queries, q_position, D, BLOCK_D)

    largest = tl.full([BLOCK_M], -INFINITY, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    weighted = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    for column in range(0, width, COLUMNS):
        columns = column + tl.arange(0, COLUMNS)
        by_column = _load_bias(bias_w, queries, columns, width, bias_w_position, HAS_BIAS_W)
        for row in range(0, height, ROWS):
            rows = row + tl.arange(0, ROWS)
            by_row = _load_bias(bias_h, queries, rows, height, bias_h_position, HAS_BIAS_H)
            logits = _join_biases(by_row, by_column, ROWS, COLUMNS)
            keys, _ = _tile_positions(row, column, height, width, ROWS, COLUMNS)
            if CONTENT:
                k_tile = _load_heads(k, keys, k_position, D, BLOCK_D)
                content = tl.dot(q_block, tl.trans(k_tile), input_precision="ieee")
                logits = content * scale + logits
            else:
                logits = tl.broadcast_to(logits, [BLOCK_M, ROWS * COLUMNS])
            new_largest = tl.maximum(largest, tl.max(logits, 1))
            # A caller may mask whole tiles with -inf; -inf - -inf would be NaN.
            shift = tl.where(new_largest == -INFINITY, 0.0, new_largest) * LOG2_E
            weights = tl.exp2(logits * LOG2_E - shift[:, None])
            correction = tl.exp2(largest * LOG2_E - shift)
            total = total * correction + tl.sum(weights, 1)
            v_tile = _load_heads(v, keys, v_position, DV, BLOCK_DV)
            weighted = weighted * correction[:, None]
            weighted = tl.dot(weights.to(v_tile.dtype), v_tile, weighted, input_precision="ieee")
            largest = new_largest

    inside = numbers < n
    first = group.to(tl.int64) * n
    _store_heads(out + first * DV, queries, inside, weighted / total[:, None], DV, DV, BLOCK_DV)
    tl.store(log_sum_exp + first + queries, largest * LOG2_E + tl.log2(total), mask=inside)


@triton.jit
def query_gradient_kernel(
    q, k, v, bias_h, bias_w, out, log_sum_exp, grad_out,
    grad_q, grad_h, grad_w, delta,
    q_batch, q_head, q_position, k_batch, k_head, k_position, v_batch, v_head, v_position,
    bias_h_batch, bias_h_head, bias_h_position, bias_w_batch, bias_w_head, bias_w_position,
    grad_out_batch, grad_out_head, grad_out_position,
    heads, height, width, scale,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CONTENT: tl.constexpr, HAS_BIAS_H: tl.constexpr, HAS_BIAS_W: tl.constexpr,
):  # fmt: skip
    """One program: gradients of one block of queries and of its biases, and its delta.

    delta_i = dO_i . O_i = sum_j P_ij dP_ij, which the softmax's derivative subtracts.
    """
    n = height * width
    blocks = tl.cdiv(n, BLOCK_M)
    group = tl.program_id(0) // blocks
    numbers = (tl.program_id(0) % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = numbers < n
    queries = tl.minimum(numbers, n - 1)
    first = group.to(tl.int64) * n
    q += _group_offset(group, heads, q_batch, q_head)
    k += _group_offset(group, heads, k_batch, k_head)
    v += _group_offset(group, heads, v_batch, v_head)
    grad_out += _group_offset(group, heads, grad_out_batch, grad_out_head)
    if HAS_BIAS_H:
        bias_h += _group_offset(group, heads, bias_h_batch, bias_h_head)
        grad_h += first * height
    if HAS_BIAS_W:
        bias_w += _group_offset(group, heads, bias_w_batch, bias_w_head)
        grad_w += first * width
    grad_block = _load_heads(grad_out, queries, grad_out_position, DV, BLOCK_DV)
    out_block = _load_heads(out + first * DV, queries, DV, DV, BLOCK_DV)
    deltas = tl.sum(grad_block.to(tl.float32) * out_block.to(tl.float32), 1)
    tl.store(delta + first + queries, deltas, mask=inside)
    log_sum_exps = tl.load(log_sum_exp + first + queries)
    if CONTENT:
        q_block = _load_heads(q, queries, q_position, D, BLOCK_D)
        to_q = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)

    for column in range(0, width, COLUMNS):
        columns = column + tl.arange(0, COLUMNS)
        by_column = _load_bias(bias_w, queries, columns, width, bias_w_position, HAS_BIAS_W)
        if HAS_BIAS_W:
            to_columns = tl.zeros([BLOCK_M, COLUMNS], tl.float32)
        for row in range(0, height, ROWS):
            rows = row + tl.arange(0, ROWS)
            by_row = _load_bias(bias_h, queries, rows, height, bias_h_position, HAS_BIAS_H)
            logits = _join_biases(by_row, by_column, ROWS, COLUMNS)
            keys, _ = _tile_positions(row, column, height, width, ROWS, COLUMNS)
            if CONTENT:
                k_tile = _load_heads(k, keys, k_position, D, BLOCK_D)
                content = tl.dot(q_block, tl.trans(k_tile), input_precision="ieee")
                logits = content * scale + logits
            weights = tl.exp2(logits * LOG2_E - log_sum_exps[:, None])
            v_tile = _load_heads(v, keys, v_position, DV, BLOCK_DV)
            to_weights = tl.dot(grad_block, tl.trans(v_tile), input_precision="ieee")
            to_logits = weights * (to_weights - deltas[:, None])
            if CONTENT:
                narrow = to_logits.to(k_tile.dtype)
                to_q = tl.dot(narrow, k_tile, to_q, input_precision="ieee")
            by_cell = tl.reshape(to_logits, [BLOCK_M, ROWS, COLUMNS])
            if HAS_BIAS_W:
                to_columns += tl.sum(by_cell, 1)
            if HAS_BIAS_H:
                # A row's sum grows by one tile of columns after the other.
                pointers = grad_h + queries.to(tl.int64)[:, None] * height + rows[None, :]
                mask = inside[:, None] & (rows < height)[None, :]
                to_rows = tl.load(pointers, mask=mask & (column > 0), other=0.0)
                tl.store(pointers, to_rows + tl.sum(by_cell, 2), mask=mask)
        if HAS_BIAS_W:
            pointers = grad_w + queries.to(tl.int64)[:, None] * width + columns[None, :]
            mask = inside[:, None] & (columns < width)[None, :]
            tl.store(pointers, to_columns.to(grad_w.dtype.element_ty), mask=mask)
        if HAS_BIAS_H:
            # The next tile of columns reads what other threads have stored.
            tl.debug_barrier()

    if CONTENT:
        _store_heads(grad_q + first * D, queries, inside, to_q * scale, D, D, BLOCK_D)


@triton.jit
def key_gradient_kernel(
    q, k, v, bias_h, bias_w, log_sum_exp, grad_out, delta,
    grad_k, grad_v,
    q_batch, q_head, q_position, k_batch, k_head, k_position, v_batch, v_head, v_position,
    bias_h_batch, bias_h_head, bias_h_position, bias_w_batch, bias_w_head, bias_w_position,
    grad_out_batch, grad_out_head, grad_out_position,
    heads, height, width, scale,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CONTENT: tl.constexpr, HAS_BIAS_H: tl.constexpr, HAS_BIAS_W: tl.constexpr,
):  # fmt: skip
    """One program: gradients of the keys and values of one tile; logits are [T, M] here."""
    n = height * width
    tiles_across = tl.cdiv(width, COLUMNS)
    tiles = tl.cdiv(height, ROWS) * tiles_across
    group = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    row = tile // tiles_across * ROWS
    column = tile % tiles_across * COLUMNS
    rows = row + tl.arange(0, ROWS)
    columns = column + tl.arange(0, COLUMNS)
    keys, inside = _tile_positions(row, column, height, width, ROWS, COLUMNS)
    first = group.to(tl.int64) * n
    q += _group_offset(group, heads, q_batch, q_head)
    k += _group_offset(group, heads, k_batch, k_head)
    v += _group_offset(group, heads, v_batch, v_head)
    grad_out += _group_offset(group, heads, grad_out_batch, grad_out_head)
    if HAS_BIAS_H:
        bias_h += _group_offset(group, heads, bias_h_batch, bias_h_head)
    if HAS_BIAS_W:
        bias_w += _group_offset(group, heads, bias_w_batch, bias_w_head)
    to_v = tl.zeros([ROWS * COLUMNS, BLOCK_DV], tl.float32)
    if CONTENT:
        k_tile = _load_heads(k, keys, k_position, D, BLOCK_D)
        v_tile = _load_heads(v, keys, v_position, DV, BLOCK_DV)
        to_k = tl.zeros([ROWS * COLUMNS, BLOCK_D], tl.float32)

    for start in range(0, n, BLOCK_M):
        numbers = start + tl.arange(0, BLOCK_M)
        queries = tl.minimum(numbers, n - 1)
        by_row = _load_bias(bias_h, queries, rows, height, bias_h_position, HAS_BIAS_H)
        by_column = _load_bias(bias_w, queries, columns, width, bias_w_position, HAS_BIAS_W)
        logits = tl.trans(_join_biases(by_row, by_column, ROWS, COLUMNS))
        if CONTENT:
            q_block = _load_heads(q, queries, q_position, D, BLOCK_D)
            content = tl.dot(k_tile, tl.trans(q_block), input_precision="ieee")
            logits = content * scale + logits
        # A log-sum-exp of infinity leaves a query beyond the last no weight.
        log_sum_exps = tl.load(log_sum_exp + first + queries, mask=numbers < n, other=INFINITY)
        weights = tl.exp2(logits * LOG2_E - log_sum_exps[None, :])
        grad_block = _load_heads(grad_out, queries, grad_out_position, DV, BLOCK_DV)
        to_v = tl.dot(weights.to(grad_block.dtype), grad_block, to_v, input_precision="ieee")
        if CONTENT:
            deltas = tl.load(delta + first + queries)
            to_weights = tl.dot(v_tile, tl.trans(grad_block), input_precision="ieee")
            to_logits = weights * (to_weights - deltas[None, :])
            to_k = tl.dot(to_logits.to(q_block.dtype), q_block, to_k, input_precision="ieee")

    _store_heads(grad_v + first * DV, keys, inside, to_v, DV, DV, BLOCK_DV)
    if CONTENT:
        _store_heads(grad_k + first * D, keys, inside, to_k * scale, D, D, BLOCK_D)
