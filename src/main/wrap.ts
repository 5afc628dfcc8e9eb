// The function that the asset's text becomes; the executable and the maker of its code cache must agree on it.

/** A CommonJS module as a function expression: `(module, exports, require)`. */
export function wrap(source: string): string {
  return `(function (module, exports, require) {${source}\n})`;
}
