// A list of lines of one height, of which only those in sight are in the document. However fast lines
// come, it draws at most once a frame, and nothing moves but what is told to.

const SPARE = 4; // lines above and below what is in sight

export class Lines {
  // `make` makes an empty line, `fill` writes an item into one. With `latestFirst` the last item stands on top.
  constructor(scroller, { make, fill, latestFirst = false, most = Infinity }) {
    Object.assign(this, { scroller, make, fill, latestFirst, most });
    this.list = scroller.querySelector(".items");
    this.items = [];
    this.slots = [];
    this.redrawn = -1;
    this.edition = 0; // of all items: another one has every line filled anew
    scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.measure()).observe(scroller);
    this.measure();
  }

  measure() {
    this.height = this.scroller.clientHeight - this.list.offsetTop; // what stands above stays in sight
    this.row = parseFloat(getComputedStyle(this.scroller).getPropertyValue("--row")) * parseFloat(getComputedStyle(document.documentElement).fontSize);
    this.edition++;
    this.draw();
  }

  // Let these be all items.
  set(items) {
    this.items = items;
    this.edition++;
    this.draw();
  }

  // Add items; the oldest go where there are too many.
  add(items) {
    const reading = this.latestFirst && this.scroller.scrollTop > this.row / 2;
    this.items.push(...items);
    const over = Math.max(0, this.items.length - this.most);
    if (over) this.items.splice(0, over);
    if (reading) this.pushed = (this.pushed ?? 0) + items.length;
    this.draw();
  }

  // Draw in the next frame, however often this is called until then.
  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.drawNow();
    });
  }

  drawNow() {
    const { items, row } = this;
    if (this.total !== items.length * row) this.list.style.height = `${(this.total = items.length * row)}px`;
    if (this.pushed) this.scroller.scrollTop += this.pushed * row; // who reads further down goes on reading
    this.pushed = 0;
    const top = Math.floor(this.scroller.scrollTop / row);
    const first = Math.max(0, top - SPARE);
    const last = Math.min(items.length, top + Math.ceil(this.height / row) + SPARE);
    const wanted = Math.ceil(this.height / row) + 2 * SPARE + 1;
    while (this.slots.length < wanted) this.slots.push(this.newSlot());
    // An item stays in the element that it is in: whoever is about to press its button must not hit another one's.
    const own = new Map(this.slots.filter(({ element }) => !element.hidden).map((slot) => [slot.item, slot]));
    const indexes = Array.from({ length: Math.max(0, last - first) }, (_, n) => (this.latestFirst ? items.length - 1 - first - n : first + n));
    const kept = new Set(indexes.map((index) => own.get(items[index])));
    const free = this.slots.filter((slot) => !kept.has(slot));
    indexes.forEach((index, n) => this.place(own.get(items[index]) ?? free.shift(), first + n, items[index], index));
    for (const { element } of free) element.hidden = true;
    clearTimeout(this.sorting);
    // Tab and screen readers go by the order in the document; while lines pour in it can wait.
    if (this.list.contains(document.activeElement)) this.sort();
    else this.sorting = setTimeout(() => this.sort(), 200);
  }

  // Put the lines in the order in which they are seen, around the one that has the focus, which must not move.
  sort() {
    const focused = this.slots.find(({ element }) => element.contains(document.activeElement));
    const sorted = this.slots.filter(({ element }) => !element.hidden).sort((one, other) => one.at - other.at);
    const children = [...this.list.children].filter((element) => !element.hidden);
    if (sorted.every(({ element }, at) => element === children[at])) return;
    for (const slot of sorted) {
      if (slot === focused) continue;
      this.list.insertBefore(slot.element, focused && slot.at < focused.at ? focused.element : null);
    }
  }

  place(slot, at, item, index) {
    if (slot.at !== at) slot.element.style.transform = `translateY(${(slot.at = at) * this.row}px)`;
    if (slot.item !== item || slot.version !== item.version || slot.edition !== this.edition) {
      Object.assign(slot, { item, version: item.version, edition: this.edition });
      slot.element.style.transform = `translateY(${at * this.row}px)`;
      this.fill(slot, item, index);
    }
    slot.element.hidden = false;
  }

  newSlot() {
    const slot = this.make();
    slot.element.hidden = true;
    this.list.append(slot.element);
    return slot;
  }

  // The element that shows an item, if it is in sight.
  elementOf(item) {
    return this.slots.find((slot) => slot.item === item && !slot.element.hidden)?.element ?? null;
  }

  get isAtEnd() {
    return this.scroller.scrollTop + this.height >= this.items.length * this.row - this.row / 2;
  }

  // Scroll so that an item is in sight.
  reveal(item) {
    const index = this.items.indexOf(item);
    const at = (this.latestFirst ? this.items.length - 1 - index : index) * this.row;
    if (at < this.scroller.scrollTop) this.scroller.scrollTop = at;
    else if (at + this.row > this.scroller.scrollTop + this.height) this.scroller.scrollTop = at + this.row - this.height;
  }
}
