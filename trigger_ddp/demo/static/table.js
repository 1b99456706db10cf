// A table body that follows documents: rows enter, leave and move, and only cells whose value differs are touched.

const LEAVE_TIMEOUT = 1000;

export class LiveTable {
  #body;
  #columns;
  #compare;
  #rows = new Map(); // id to {element, document, values}
  #order = []; // the same rows as they stand in the table

  /**
   * @param {HTMLTableSectionElement} body
   * @param {{className?: string, value: Function, render?: Function}[]} columns `value(document)` is the text that
   *   decides whether the cell is another; `render(cell, document)` fills it, by default with that text.
   * @param {Function} compare orders two documents.
   */
  constructor(body, columns, compare) {
    this.#body = body;
    this.#columns = columns;
    this.#compare = compare;
  }

  get size() {
    return this.#rows.size;
  }

  /** Show the document: a new row, or the differences to what its row shows. Quietly: without any animation. */
  put(document, { quietly = false } = {}) {
    const known = this.#rows.get(document._id);
    const row = known ?? this.#newRow(document._id);
    row.document = document;
    this.#columns.forEach((column, index) => {
      const value = column.value(document);
      if (row.values[index] === value) return;
      row.values[index] = value;
      const cell = row.element.cells[index];
      this.#fill(cell, column, document, value);
      if (known && !quietly) flash(cell);
    });
    this.#place(row);
    if (!known && !quietly) animate(row.element, 'entering');
  }

  /** Put every row again, after something changed that its cells are computed from. */
  refresh(options) {
    for (const { document } of [...this.#rows.values()]) this.put(document, options);
  }

  /** Fill one cell anew from the row's document, for instance after it was edited. */
  redraw(id, index) {
    const row = this.#rows.get(id);
    if (row) this.#fill(row.element.cells[index], this.#columns[index], row.document, row.values[index]);
  }

  remove(id) {
    const row = this.#rows.get(id);
    if (!row) return;
    this.#rows.delete(id);
    this.#order.splice(this.#order.indexOf(row), 1);
    row.element.removeAttribute('data-id');
    row.element.inert = true;
    animate(row.element, 'leaving', () => row.element.remove());
  }

  #newRow(id) {
    const element = document.createElement('tr');
    element.dataset.id = id;
    for (const { className } of this.#columns) {
      const cell = element.insertCell();
      if (className) cell.className = className;
    }
    const row = { element, document: null, values: [] };
    this.#rows.set(id, row);
    return row;
  }

  #fill(cell, column, document, value) {
    if (column.render) column.render(cell, document);
    else cell.textContent = value;
  }

  /** Move the row where it belongs, if it is not there already. */
  #place(row) {
    const at = this.#order.indexOf(row);
    if (at >= 0) this.#order.splice(at, 1);
    let [low, high] = [0, this.#order.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#compare(this.#order[middle].document, row.document) < 0) low = middle + 1;
      else high = middle;
    }
    this.#order.splice(low, 0, row);
    if (low !== at) this.#body.insertBefore(row.element, this.#order[low + 1]?.element ?? null);
  }
}

/** Let the eye see that this element's content is another now. */
export function flash(element) {
  animate(element, 'changed');
}

/** Run the CSS animation of a class from its start, then take the class away and call `done`. */
function animate(element, className, done = () => {}) {
  element.classList.remove(className);
  void element.offsetWidth; // lets the same animation start again
  element.classList.add(className);
  let ended = false;
  const end = () => {
    if (ended) return;
    ended = true;
    element.classList.remove(className);
    done();
  };
  element.addEventListener('animationend', (event) => event.target === element && end(), { once: true });
  if (className === 'leaving') setTimeout(end, LEAVE_TIMEOUT); // a hidden tab runs no animations
}
