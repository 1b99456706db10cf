// EJSON: JSON with dates, bytes, not-a-number and a few more, each written as an object whose keys start with "$".
// https://docs.meteor.com/api/ejson

/** Values of types that only the server knows, for instance {type: 'Decimal', value: '9.99'}. */
export class Custom {
  constructor(type, value) {
    this.type = type;
    this.value = value;
  }

  toString() {
    return String(this.value);
  }
}

const isPlain = (value) => Object.getPrototypeOf(value) === Object.prototype;

/** Turn what JSON.parse gave into values: `{"$date": 0}` into a Date, and so on, at any depth. */
export function decode(json) {
  if (Array.isArray(json)) return json.map(decode);
  if (json === null || typeof json !== 'object') return json;
  const keys = Object.keys(json);
  if (keys.length === 1) {
    const [key] = keys;
    const value = json[key];
    if (key === '$date') return new Date(value);
    if (key === '$InfNaN') return value === 0 ? NaN : value * Infinity;
    if (key === '$binary') return Uint8Array.from(atob(value), (character) => character.charCodeAt(0));
    if (key === '$escape') return decodeEach(value); // its own keys are to be taken literally
  }
  if (keys.length === 2) {
    if ('$type' in json && '$value' in json) return new Custom(json.$type, decode(json.$value));
    if ('$regexp' in json && '$flags' in json) return new RegExp(json.$regexp, json.$flags);
  }
  return decodeEach(json);
}

function decodeEach(object) {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [key, decode(value)]));
}

/** The inverse: what may be given to JSON.stringify. */
export function encode(value) {
  if (typeof value === 'number' && !Number.isFinite(value)) {
    return { $InfNaN: Number.isNaN(value) ? 0 : Math.sign(value) };
  }
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map(encode);
  if (value instanceof Date) return { $date: value.getTime() };
  if (value instanceof Uint8Array) return { $binary: btoa(String.fromCharCode(...value)) };
  if (value instanceof RegExp) return { $regexp: value.source, $flags: value.flags };
  if (value instanceof Custom) return { $type: value.type, $value: encode(value.value) };
  if (!isPlain(value)) throw new TypeError(`EJSON can't carry a ${value.constructor?.name ?? 'value of this kind'}`);
  const encoded = Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, encode(inner)]));
  const keys = Object.keys(value);
  const looksLikeEjson =
    (keys.length === 1 && ['$date', '$InfNaN', '$binary', '$escape'].includes(keys[0])) ||
    (keys.length === 2 && ('$type' in value ? '$value' in value : '$regexp' in value && '$flags' in value));
  return looksLikeEjson ? { $escape: encoded } : encoded;
}
