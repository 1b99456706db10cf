// The last messages on the connection, newest first.

const KEPT = 50;

const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });

export class DDPLog {
  #list;
  #counter;
  #count = 0;

  constructor(client, list, counter) {
    this.#list = list;
    this.#counter = counter;
    client.addEventListener('message', ({ detail }) => this.#add(detail));
  }

  #add({ direction, text }) {
    this.#counter.textContent = ++this.#count;
    const item = document.createElement('li');
    item.className = direction;
    const time = document.createElement('time');
    time.textContent = clock.format();
    const arrow = document.createElement('span');
    arrow.textContent = direction === 'in' ? '↓' : '↑';
    arrow.title = direction === 'in' ? 'from the server' : 'to the server';
    const message = document.createElement('code');
    message.textContent = text;
    item.append(time, arrow, message);
    this.#list.prepend(item);
    while (this.#list.childElementCount > KEPT) this.#list.lastElementChild.remove();
  }
}
