// Module hooks that let Node load @meteorrn/core, which is written for React Native's bundler: modules without an
// extension, ES modules that do not say so, and React itself, of which it needs no more than that it is there.

const REACT = `
  const none = () => {};
  export const useEffect = none, useRef = none, useReducer = none, useMemo = none, forwardRef = none, memo = none;
  export default {};
`;

export async function resolve(specifier, context, next) {
  if (specifier === "react") return { url: "stub:react", shortCircuit: true };
  if (specifier.startsWith(".") && !/\.\w+$/.test(specifier)) specifier += ".js";
  return next(specifier, context);
}

export async function load(url, context, next) {
  if (url === "stub:react") return { format: "module", source: REACT, shortCircuit: true };
  if (url.includes("/@meteorrn/core/")) return next(url, { ...context, format: "module" });
  return next(url, context);
}
