// Gaussians drawn with WebGL2 as vlmgs_ns.rasterize does: one quad each, blended from the farthest to the nearest.

const EFFECTS = { none: 0, colour: 1, isolate: 2, hide: 3, probe: 4 };
const ROW = 2048; // texels
const BATCH = 128; // Gaussians of one instance: one instance for each keeps a GPU, or a processor in its place, waiting
const NEAR = 0.01; // scene units

const VERTEX = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2DArray;
uniform highp usampler2D order;
uniform highp sampler2D places, diagonal, rest, colours, words;
uniform sampler2DArray harmonics;
uniform mat3 turn;       // world → camera: x right, y down, z forward
uniform vec3 eye, tint;
uniform vec2 focal, centre, size, colourRange;  // pixels
uniform float blur, harmonicStep, threshold, farthest;
uniform int effect;
uniform bool antialiased;
flat out vec4 ink;
out vec2 offset;         // standard deviations

vec3 harmonic(ivec2 at, int k) { return (texelFetch(harmonics, ivec3(at, k), 0).rgb * 255. - 128.) * harmonicStep; }

vec3 viewDependent(ivec2 at, vec3 d) {
  vec3 sum = vec3(0.);
  float x = d.x, y = d.y, z = d.z;
#if DEGREE > 0
  sum += .4886025119029199 * (-y * harmonic(at, 0) + z * harmonic(at, 1) - x * harmonic(at, 2));
#endif
#if DEGREE > 1
  sum += 1.0925484305920792 * (x * y * harmonic(at, 3) - y * z * harmonic(at, 4) - x * z * harmonic(at, 6))
    + .31539156525252005 * (3. * z * z - 1.) * harmonic(at, 5) + .5462742152960396 * (x * x - y * y) * harmonic(at, 7);
#endif
#if DEGREE > 2
  sum += -.5900435899266435 * (y * (3. * x * x - y * y) * harmonic(at, 8) + x * (x * x - 3. * y * y) * harmonic(at, 14))
    + 2.890611442640554 * x * y * z * harmonic(at, 9) + 1.445305721320277 * z * (x * x - y * y) * harmonic(at, 13)
    - .4570457994644658 * (5. * z * z - 1.) * (y * harmonic(at, 10) + x * harmonic(at, 12))
    + .3731763325901154 * z * (5. * z * z - 3.) * harmonic(at, 11);
#endif
  return sum;
}

void main() {
  gl_Position = vec4(2., 2., 2., 1.);  // outside of the picture, until it is known to be inside
  int rank = gl_InstanceID * BATCH + (gl_VertexID >> 2);
  if (rank >= COUNT) return;
  int id = int(texelFetch(order, ivec2(rank % ROW, rank / ROW), 0).r);
  ivec2 at = ivec2(id % ROW, id / ROW);
  vec4 place = texelFetch(places, at, 0);
  vec3 t = turn * (place.xyz - eye);
  if (t.z < NEAR) return;
  float relevancy = effect == NONE ? 0. : texelFetch(words, at, 0).r;
  bool chosen = relevancy > threshold;
  if (effect == ISOLATE && !chosen || effect == HIDE && chosen) return;

  vec4 d = texelFetch(diagonal, at, 0), r = texelFetch(rest, at, 0);
  mat3 covariance = mat3(d.x, d.y, d.z, d.y, r.x, r.y, d.z, r.y, r.z);
  // As gsplat: the projection is taken to be linear at most 15 % of the picture outside of it.
  vec2 margin = .15 * size / focal, low = -centre / focal - margin, high = (size - centre) / focal + margin;
  vec2 slope = clamp(t.xy / t.z, low, high);
  vec3 u = vec3(focal.x, 0., -focal.x * slope.x) / t.z * turn, v = vec3(0., focal.y, -focal.y * slope.y) / t.z * turn;
  vec3 across = covariance * u, down = covariance * v;
  float a = dot(u, across), b = dot(u, down), c = dot(v, down), sharp = a * c - b * b;
  a += blur; c += blur;
  float opacity = place.w * (antialiased ? sqrt(max(sharp / (a * c - b * b), 0.)) : 1.);
  if (opacity < 1. / 255.) return;
  float mean = (a + c) / 2., spread = length(vec2((a - c) / 2., b));
  vec2 axis = spread < 1e-6 ? vec2(1., 0.) : normalize(a >= c ? vec2(mean + spread - c, b) : vec2(b, mean + spread - a));
  vec2 deviations = sqrt(vec2(mean + spread, max(mean - spread, 0.)));
  float edge = sqrt(2. * log(255. * opacity));  // where it falls below 1/255
  offset = edge * (vec2(gl_VertexID & 1, gl_VertexID >> 1 & 1) * 2. - 1.);
  vec2 pixel = focal * t.xy / t.z + centre;
  if (any(greaterThan(abs(pixel - size / 2.), size / 2. + edge * deviations.x))) return;
  pixel += offset.x * deviations.x * axis + offset.y * deviations.y * vec2(-axis.y, axis.x);
  gl_Position = vec4(pixel / size * vec2(2., -2.) + vec2(-1., 1.), 0., 1.);

  if (effect == PROBE) {
    ink = vec4(relevancy, min(t.z / farthest, 1.), 0., opacity);
    return;
  }
  vec3 base = mix(vec3(colourRange.x), vec3(colourRange.y), texelFetch(colours, at, 0).rgb);
  vec3 colour = max(base + viewDependent(at, normalize(place.xyz - eye)), 0.);
  if (effect == COLOUR) colour = chosen ? mix(colour, tint, .65) : mix(colour, vec3(dot(colour, vec3(.3, .6, .1))), .6);
  ink = vec4(colour, opacity);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
flat in vec4 ink;
in vec2 offset;
out vec4 colour;
void main() {
  float alpha = min(.999, ink.a * exp(-.5 * dot(offset, offset)));
  if (alpha < 1. / 255.) discard;
  colour = vec4(ink.rgb * alpha, alpha);
}`;

class Renderer {
  /** Throws an Error where the browser has no WebGL2. */
  constructor(canvas, gaussians, header, antialiased) {
    const gl = this.gl = canvas.getContext("webgl2", { antialias: false, depth: false, alpha: true });
    if (!gl) throw new Error("no WebGL2");
    this.count = header.count;
    const names = { ROW, BATCH, NEAR, COUNT: this.count, DEGREE: header.degree };
    for (const [name, value] of Object.entries(EFFECTS)) names[name.toUpperCase()] = value;
    const defines = Object.entries(names).map(([name, value]) => `#define ${name} ${value}\n`).join("");
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source.replace("\n", "\n" + defines));
      gl.compileShader(shader);
      gl.attachShader(program, shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    this.uniform = (name) => gl.getUniformLocation(program, name);

    const { places, shapes, colours, harmonics } = gaussians, blank = new Uint8Array(this.count);
    this.units = ["places", "diagonal", "rest", "colours", "words", "harmonics", "order"];
    this.texture("places", gl.RGBA32F, gl.RGBA, gl.FLOAT, [places]);
    this.texture("diagonal", gl.RGBA32F, gl.RGBA, gl.FLOAT, [shapes[0]]);
    this.texture("rest", gl.RGBA32F, gl.RGBA, gl.FLOAT, [shapes[1]]);
    this.texture("colours", gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, [colours]);
    this.texture("harmonics", gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, harmonics, gl.TEXTURE_2D_ARRAY);
    this.texture("words", gl.R8, gl.RED, gl.UNSIGNED_BYTE, [blank]);
    this.texture("order", gl.R32UI, gl.RED_INTEGER, gl.UNSIGNED_INT, []);
    this.marked = blank;
    gl.uniform2fv(this.uniform("colourRange"), header.colours);
    gl.uniform1f(this.uniform("harmonicStep"), header.harmonicStep);
    gl.uniform1i(this.uniform("antialiased"), antialiased);
    gl.uniform3f(this.uniform("tint"), 1, 0.42, 0.05);

    const corners = Array.from({ length: BATCH }, (_, k) => [0, 1, 2, 2, 1, 3].map((corner) => 4 * k + corner));
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, new Uint16Array(corners.flat()), gl.STATIC_DRAW);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);

    // One pixel to look up what is at a place.
    const fine = gl.getExtension("EXT_color_buffer_float");
    this.depthIsFine = Boolean(fine);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texStorage2D(gl.TEXTURE_2D, 1, fine ? gl.RGBA16F : gl.RGBA8, 1, 1);
    this.probe = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.probe);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, gl.getParameter(gl.TEXTURE_BINDING_2D), 0);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  }

  /** Make the texture of a name, one texel a Gaussian in rows of ROW, one layer for each array of values. */
  texture(name, internal, format, type, layers, target = this.gl.TEXTURE_2D) {
    const { gl } = this, rows = Math.ceil(this.count / ROW), unit = this.units.indexOf(name);
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(target, gl.createTexture());
    gl.uniform1i(this.uniform(name), unit);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texParameteri(target, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(target, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    if (target === gl.TEXTURE_2D) gl.texStorage2D(target, 1, internal, ROW, rows);
    else gl.texStorage3D(target, 1, internal, ROW, rows, Math.max(1, layers.length));
    layers.forEach((values, layer) => this.fill(target, layer, format, type, values));
    gl.activeTexture(gl.TEXTURE0 + this.units.length);
  }

  fill(target, layer, format, type, values) {
    const { gl } = this, texels = values.length / this.count, rows = Math.floor(this.count / ROW), left = this.count - rows * ROW;
    const part = (y, width, height, from) => {
      const data = values.subarray(from * texels);
      if (!width || !height) return;
      if (target === gl.TEXTURE_2D) gl.texSubImage2D(target, 0, 0, y, width, height, format, type, data);
      else gl.texSubImage3D(target, 0, 0, y, layer, width, height, 1, format, type, data);
    };
    part(0, ROW, rows, 0);
    part(rows, left, 1, rows * ROW);
  }

  /** Replace the values of a texture of one layer. */
  refill(name, format, type, values) {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0 + this.units.indexOf(name));
    this.fill(gl.TEXTURE_2D, 0, format, type, values);
    gl.activeTexture(gl.TEXTURE0 + this.units.length);
  }

  /** Take the relevancy [N] bytes of a phrase. */
  mark(relevancy) {
    this.refill("words", this.gl.RED, this.gl.UNSIGNED_BYTE, relevancy);
    this.marked = relevancy;
  }

  /** Take an order to blend in. */
  sort(order) {
    this.refill("order", this.gl.RED_INTEGER, this.gl.UNSIGNED_INT, order);
  }

  /** Draw a view: turn (rows), eye, focal and centre in pixels, blur in pixels²; its left bottom corner at a pixel. */
  draw({ turn, eye, focal, centre, size, blur }, effect, threshold, farthest = 1, corner = [0, 0]) {
    const { gl } = this;
    gl.viewport(...corner, ...size);
    gl.uniformMatrix3fv(this.uniform("turn"), true, turn.flat());
    gl.uniform3fv(this.uniform("eye"), eye);
    gl.uniform2fv(this.uniform("focal"), focal);
    gl.uniform2fv(this.uniform("centre"), centre);
    gl.uniform2fv(this.uniform("size"), size);
    gl.uniform1f(this.uniform("blur"), blur);
    gl.uniform1f(this.uniform("threshold"), threshold);
    gl.uniform1f(this.uniform("farthest"), farthest);
    gl.uniform1i(this.uniform("effect"), EFFECTS[effect]);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.drawElementsInstanced(gl.TRIANGLES, 6 * BATCH, gl.UNSIGNED_SHORT, 0, Math.ceil(this.count / BATCH));
  }

  /**
   * Return what a pixel of a view shows: opacity, blended relevancy in [0, 1] of each row of bytes, and depth.
   * The picture is moved so that the pixel falls on the probe.
   */
  look(view, [x, y], rows, farthest) {
    const { gl } = this, corner = [-Math.floor(x), Math.floor(y) + 1 - view.size[1]], found = new Float32Array(4), { marked } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.probe);
    const read = (row) => {
      this.mark(row);
      this.draw(view, "probe", 0, farthest, corner);
      if (this.depthIsFine) gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.FLOAT, found);
      else {
        const bytes = new Uint8Array(4);
        gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
        bytes.forEach((byte, k) => { found[k] = byte / 255; });
      }
      return found[3] > 0 ? found[0] / found[3] : 0;
    };
    const relevancy = (rows.length ? rows : [marked]).map(read);
    this.mark(marked);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    return { opacity: found[3], relevancy, depth: found[3] > 0 ? found[1] / found[3] * farthest : 0 };
  }
}
