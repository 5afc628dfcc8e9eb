// Writes JSON in which no character steers a terminal: JSON itself lets DEL and the C1 controls stand as they are.

/** @param indent spaces for each level; without it all stands on one line. */
export function jsonOf(value: unknown, indent?: number): string {
  const text = JSON.stringify(value, null, indent) ?? 'null';
  return text.replace(/[\u007f-\u009f]/g, char => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
