// What a training step computes between its matrix products, each in one pass over memory.
//
// The functions of packed/ have the same computations as lines of PyTorch, and tests compare the
// two. Numbers are float32 here; they are read and written as bfloat16 (suffix _bf16) or float32
// (suffix _f32). Rows are spread over the threads of PyTorch's own OpenMP library. Each row is
// computed by one thread in a fixed order, so the result does not depend on the number of threads.
//
// Compiled without -ffast-math, which would change how the whole process treats tiny numbers.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

struct bf16 {
    uint16_t bits;
};

inline float load(const float* p) { return *p; }

inline float load(const bf16* p) {
    uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline void store(float* p, float value) { *p = value; }

inline void store(bf16* p, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    // To the nearest, ties to even. The addition would turn some NaN into other numbers.
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    p->bits = static_cast<uint16_t>(is_nan ? 0x7fc0u : rounded);
}

// e^x with an error of at most two units in the last place, in a form that compilers vectorize.
inline float exp_(float x) {
    x = x < -87.0f ? -87.0f : x;  // the smallest normal number; a NaN stays one
    x = x > 88.0f ? 88.0f : x;
    float n = std::floor(x * 1.44269504f + 0.5f);
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t exponent = (static_cast<int32_t>(n) + 127) << 23;
    float power;
    std::memcpy(&power, &exponent, 4);
    return p * power;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exp_(-x)); }

// x + alpha * delta -> sum, then sum / rms(sum) * weight -> out, whose rows are `stride` apart.
// Without delta, sum is x.
template <typename T>
void add_norm(const float* x, const T* delta, float alpha, const float* weight, float eps,
              float* sum, float* inverse_rms, T* out, int64_t rows, int64_t width, int64_t stride,
              int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        const float* row = x + i * width;
        float squares = 0.0f;
        if (delta) {
            const T* d = delta + i * width;
            float* s = sum + i * width;
#pragma omp simd reduction(+ : squares)
            for (int64_t j = 0; j < width; j++) {
                float value = row[j] + alpha * load(d + j);
                s[j] = value;
                squares += value * value;
            }
            row = s;
        } else {
#pragma omp simd reduction(+ : squares)
            for (int64_t j = 0; j < width; j++) squares += row[j] * row[j];
        }
        float inverse = 1.0f / std::sqrt(squares / static_cast<float>(width) + eps);
        inverse_rms[i] = inverse;
        T* o = out + i * stride;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) store(o + j, row[j] * inverse * weight[j]);
    }
}

// With n = x / rms(x) and g = grad * weight: grad_sum + (g - n * mean(g * n)) / rms(x) -> grad_x,
// and alpha times that -> grad_delta, in the format of the products. grad_sum may be null.
template <typename T>
void add_norm_backward(const float* x, const float* weight, const float* inverse_rms,
                       const T* grad, const float* grad_sum, float alpha, float* grad_x,
                       T* grad_delta, int64_t rows, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        const float* xs = x + i * width;
        const T* g = grad + i * width;
        float* out = grad_x + i * width;
        float inverse = inverse_rms[i], dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t j = 0; j < width; j++) dot += load(g + j) * weight[j] * xs[j];
        float factor = dot * inverse * inverse / static_cast<float>(width);
        if (grad_sum) {
            const float* s = grad_sum + i * width;
#pragma omp simd
            for (int64_t j = 0; j < width; j++)
                out[j] = (load(g + j) * weight[j] - xs[j] * factor) * inverse + s[j];
        } else {
#pragma omp simd
            for (int64_t j = 0; j < width; j++)
                out[j] = (load(g + j) * weight[j] - xs[j] * factor) * inverse;
        }
        if (grad_delta) {
            T* d = grad_delta + i * width;
#pragma omp simd
            for (int64_t j = 0; j < width; j++) store(d + j, alpha * out[j]);
        }
    }
}

template <typename T>
void swiglu(const T* gate_up, T* out, int64_t rows, int64_t width, int64_t stride, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        const T *gate = gate_up + i * 2 * width, *up = gate + width;
        T* o = out + i * stride;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            float g = load(gate + j);
            store(o + j, g * sigmoid(g) * load(up + j));
        }
    }
}

template <typename T>
void swiglu_backward(const T* gate_up, const T* grad, T* grad_gate_up, int64_t rows,
                     int64_t width, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        const T *gate = gate_up + i * 2 * width, *up = gate + width, *go = grad + i * width;
        T *grad_gate = grad_gate_up + i * 2 * width, *grad_up = grad_gate + width;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            float g = load(gate + j), s = sigmoid(g), d = load(go + j);
            store(grad_up + j, d * g * s);
            store(grad_gate + j, d * load(up + j) * s * (1.0f + g * (1.0f - s)));
        }
    }
}

// out[i] = the vector x[order[i]], rotated by the position of its token; order may be null (i).
// Vector v belongs to token v / vectors, and is rotated if v % vectors < rotated. Backward, the
// tokens are those of the results (i), and `sign` is -1.
template <typename T>
void rotate(const T* x, const int64_t* order, const float* cos, const float* sin, float sign,
            T* out, int64_t count, int64_t vectors, int64_t rotated, int64_t size, int64_t half,
            int by_result, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        int64_t from = order ? order[i] : i, owner = by_result ? i : from;
        const T* v = x + from * size;
        T* o = out + i * size;
        int64_t turned = owner % vectors < rotated ? half : 0;
        const float *c = cos + (owner / vectors) * half, *s = sin + (owner / vectors) * half;
#pragma omp simd
        for (int64_t j = 0; j < turned; j++) {
            float first = load(v + j), second = load(v + turned + j), sine = sign * s[j];
            store(o + j, first * c[j] - second * sine);
            store(o + turned + j, second * c[j] + first * sine);
        }
        std::memcpy(o + 2 * turned, v + 2 * turned, (size - 2 * turned) * sizeof(T));
    }
}

// softmax(scale * scores + bias) over each row, in place. `bias` repeats after `bias_rows` rows.
// The exponentials are in a buffer of whole vectors, whose end is padding.
template <typename T>
void softmax(T* scores, const T* bias, float scale, int64_t rows, int64_t bias_rows,
             int64_t width, int threads) {
    const int64_t padded = (width + 15) / 16 * 16;
#pragma omp parallel num_threads(threads)
    {
        float* e = static_cast<float*>(std::malloc(padded * sizeof(float)));
        for (int64_t j = width; j < padded; j++) e[j] = -INFINITY;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            T* s = scores + i * width;
            const T* b = bias + (i % bias_rows) * width;
#pragma omp simd
            for (int64_t j = 0; j < width; j++) e[j] = load(s + j) * scale + load(b + j);
            float highest = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : highest)
            for (int64_t j = 0; j < padded; j++) highest = e[j] > highest ? e[j] : highest;
#pragma omp simd reduction(+ : sum)
            for (int64_t j = 0; j < padded; j++) {
                float value = e[j] == -INFINITY ? 0.0f : exp_(e[j] - highest);
                e[j] = value;
                sum += value;
            }
            float inverse = 1.0f / sum;
#pragma omp simd
            for (int64_t j = 0; j < width; j++) store(s + j, e[j] * inverse);
            for (int64_t j = width; j < padded; j++) e[j] = -INFINITY;
        }
        std::free(e);
    }
}

// scale * weights * (grad - sum(weights * grad)) -> grad, in place.
template <typename T>
void softmax_backward(const T* weights, T* grad, float scale, int64_t rows, int64_t width,
                      int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        const T* w = weights + i * width;
        T* g = grad + i * width;
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t j = 0; j < width; j++) dot += load(w + j) * load(g + j);
#pragma omp simd
        for (int64_t j = 0; j < width; j++)
            store(g + j, scale * load(w + j) * (load(g + j) - dot));
    }
}

// The cross-entropy of each row's target -> losses. With needs_grad, softmax - one_hot -> logits.
template <typename T>
void cross_entropy(T* logits, const int64_t* targets, float* losses, int64_t rows, int64_t width,
                   int needs_grad, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        T* l = logits + i * width;
        float highest = -INFINITY;
#pragma omp simd reduction(max : highest)
        for (int64_t j = 0; j < width; j++) {
            float value = load(l + j);
            highest = value > highest ? value : highest;
        }
        // In float32 a sum over the whole vocabulary would lose digits.
        double sum = 0.0;
        for (int64_t at = 0; at < width; at += 512) {
            int64_t end = at + 512 < width ? at + 512 : width;
            float part = 0.0f;
#pragma omp simd reduction(+ : part)
            for (int64_t j = at; j < end; j++) part += exp_(load(l + j) - highest);
            sum += part;
        }
        float log_sum = highest + static_cast<float>(std::log(sum));
        float target = load(l + targets[i]);
        losses[i] = log_sum - target;
        if (!needs_grad) continue;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) store(l + j, exp_(load(l + j) - log_sum));
        // expm1: next to 1 the probability alone would have lost its difference from it.
        store(l + targets[i], std::expm1(target - log_sum));
    }
}

}  // namespace

#define FOR_FORMAT(T, NAME)                                                                       \
    void add_norm_##NAME(const float* x, const T* delta, float alpha, const float* weight,        \
                         float eps, float* sum, float* inverse_rms, T* out, int64_t rows,         \
                         int64_t width, int64_t stride, int threads) {                            \
        add_norm(x, delta, alpha, weight, eps, sum, inverse_rms, out, rows, width, stride,        \
                 threads);                                                                        \
    }                                                                                             \
    void add_norm_backward_##NAME(const float* x, const float* weight, const float* inverse_rms,  \
                                  const T* grad, const float* grad_sum, float alpha,              \
                                  float* grad_x, T* grad_delta, int64_t rows, int64_t width,      \
                                  int threads) {                                                  \
        add_norm_backward(x, weight, inverse_rms, grad, grad_sum, alpha, grad_x, grad_delta,      \
                          rows, width, threads);                                                  \
    }                                                                                             \
    void swiglu_##NAME(const T* gate_up, T* out, int64_t rows, int64_t width, int64_t stride,     \
                       int threads) {                                                             \
        swiglu(gate_up, out, rows, width, stride, threads);                                       \
    }                                                                                             \
    void swiglu_backward_##NAME(const T* gate_up, const T* grad, T* out, int64_t rows,            \
                                int64_t width, int threads) {                                     \
        swiglu_backward(gate_up, grad, out, rows, width, threads);                                \
    }                                                                                             \
    void rotate_##NAME(const T* x, const int64_t* order, const float* cos, const float* sin,      \
                       float sign, T* out, int64_t count, int64_t vectors, int64_t rotated,       \
                       int64_t size, int64_t half, int by_result, int threads) {                  \
        rotate(x, order, cos, sin, sign, out, count, vectors, rotated, size, half, by_result,     \
               threads);                                                                          \
    }                                                                                             \
    void softmax_##NAME(T* scores, const T* bias, float scale, int64_t rows, int64_t bias_rows,   \
                        int64_t width, int threads) {                                             \
        softmax(scores, bias, scale, rows, bias_rows, width, threads);                            \
    }                                                                                             \
    void softmax_backward_##NAME(const T* weights, T* grad, float scale, int64_t rows,            \
                                 int64_t width, int threads) {                                    \
        softmax_backward(weights, grad, scale, rows, width, threads);                             \
    }                                                                                             \
    void cross_entropy_##NAME(T* logits, const int64_t* targets, float* losses, int64_t rows,     \
                              int64_t width, int needs_grad, int threads) {                       \
        cross_entropy(logits, targets, losses, rows, width, needs_grad, threads);                 \
    }

extern "C" {
FOR_FORMAT(float, f32)
FOR_FORMAT(bf16, bf16)
}
