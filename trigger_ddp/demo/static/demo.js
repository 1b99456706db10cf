// The page of `trigger-ddp demo`: two tables, a filter, a few methods and a log, all on one DDP connection.

import { DDPClient } from './ddp.js';
import { DDPLog } from './log.js';
import { showCommands } from './commands.js';
import { LiveTable } from './table.js';
import { showStatus } from './status.js';

const byId = (id) => document.getElementById(id);
const client = new DDPClient(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/websocket`);
const authors = client.collection('bookstore.author');
const books = client.collection('bookstore.book');
const tags = client.collection('bookstore.tag');

// -- how values look ---------------------------------------------------------------------------------------------

const money = new Intl.NumberFormat('en-IE', { style: 'currency', currency: 'EUR' });
const collator = new Intl.Collator('en');

const priceText = ({ price }) => (price === null || price === undefined ? '–' : money.format(Number(String(price))));
const dateText = ({ published }) => {
  if (!published) return '–';
  return (published instanceof Date ? published.toISOString() : String(published)).slice(0, 10);
};
const authorName = ({ author_id: id }) => authors.get(id)?.name ?? '…';
const tagNames = ({ tags_ids: ids = [] }) => ids.map((id) => tags.get(id)?.name ?? '…').sort(collator.compare);
const booksOf = (author) => [...books].filter((book) => String(book.author_id) === author._id).length;

function element(name, { text, ...properties } = {}, ...children) {
  const created = Object.assign(document.createElement(name), properties);
  if (text !== undefined) created.textContent = text;
  created.append(...children);
  return created;
}

// -- the tables --------------------------------------------------------------------------------------------------

const PRICE_COLUMN = 3;

const bookTable = new LiveTable(
  byId('books').tBodies[0],
  [
    {
      className: 'title',
      value: (book) => [book.title, ...tagNames(book)].join('\n'),
      render: (cell, book) => {
        const chips = tagNames(book).map((name) => element('span', { className: 'tag', text: name }));
        cell.replaceChildren(
          element('span', { className: 'name', text: book.title }),
          element('span', { className: 'tags' }, ...chips),
        );
      },
    },
    { className: 'author', value: authorName },
    { className: 'published', value: dateText },
    { className: 'price', value: priceText, render: renderPrice },
    {
      className: 'stock',
      value: (book) => (book.in_stock ? 'in stock' : 'sold out'),
      render: (cell, book) => {
        const text = book.in_stock ? 'in stock' : 'sold out';
        const button = element('button', { type: 'button', text, title: 'Change it' });
        button.setAttribute('aria-pressed', String(book.in_stock));
        button.addEventListener('click', () => call('bookstore/toggleStock', book._id));
        cell.replaceChildren(button);
      },
    },
    {
      className: 'remove',
      value: (book) => book._id,
      render: (cell, book) => {
        const button = element('button', { type: 'button', text: '×', title: 'Delete this book' });
        button.setAttribute('aria-label', 'Delete this book');
        button.addEventListener('click', () => call('bookstore/removeBook', book._id));
        cell.replaceChildren(button);
      },
    },
  ],
  (one, other) => collator.compare(one.title, other.title) || Number(one._id) - Number(other._id),
);

const authorTable = new LiveTable(
  byId('authors').tBodies[0],
  [
    {
      className: 'name',
      value: (author) => author.name,
      render: (cell, author) => {
        const button = element('button', { type: 'button', className: 'link', text: author.name });
        button.title = 'Subscribe to this author only';
        button.addEventListener('click', () => chooseAuthor(author.email));
        cell.replaceChildren(button);
      },
    },
    { className: 'email', value: (author) => author.email },
    { className: 'books-of', value: (author) => String(booksOf(author)) },
  ],
  (one, other) => collator.compare(one.name, other.name) || Number(one._id) - Number(other._id),
);

function renderPrice(cell, book) {
  if (cell.querySelector('input')) return; // somebody is typing: shown when they are done
  const button = element('button', { type: 'button', text: priceText(book), title: 'Edit the price' });
  button.addEventListener('click', () => editPrice(cell, book._id));
  cell.replaceChildren(button);
}

function editPrice(cell, id) {
  const price = books.get(id)?.price;
  const input = element('input', { type: 'text', inputMode: 'decimal', value: price === null ? '' : String(price) });
  input.setAttribute('aria-label', 'New price');
  let open = true;
  const close = (save) => {
    if (!open) return;
    open = false;
    const text = input.value.trim();
    input.remove();
    bookTable.redraw(id, PRICE_COLUMN);
    if (save && text !== String(price ?? '')) call('bookstore/setPrice', id, text || null);
  };
  input.addEventListener('keydown', ({ key }) => {
    if (key === 'Enter') close(true);
    if (key === 'Escape') close(false);
  });
  input.addEventListener('blur', () => close(true));
  cell.replaceChildren(input);
  input.select();
}

// What a new subscription brings appears at once; what changes later is animated.
let loading = 0;

function follow(collection, table, count, afterwards) {
  collection.addEventListener('change', ({ detail: { type, id, document } }) => {
    if (type === 'removed') table.remove(id);
    else table.put(document, { quietly: loading > 0 });
    count.textContent = table.size;
    afterwards();
  });
}

follow(books, bookTable, byId('book-count'), () => authorTable.refresh({ quietly: loading > 0 }));
follow(authors, authorTable, byId('author-count'), () => {
  bookTable.refresh({ quietly: loading > 0 });
  listAuthors();
});
tags.addEventListener('change', () => bookTable.refresh({ quietly: loading > 0 }));

// -- the filter: one subscription takes the place of another --------------------------------------------------------

const filter = byId('filter');
const knownAuthors = new Map(); // email to name; while one author is subscribed to, the others stay known

function listAuthors() {
  if (!filter.value) knownAuthors.clear();
  for (const { email, name } of authors) knownAuthors.set(email, name);
  const chosen = filter.value;
  const options = [...knownAuthors].sort(([, one], [, other]) => collator.compare(one, other));
  filter.replaceChildren(
    new Option('All authors', ''),
    ...options.map(([email, name]) => new Option(name, email, false, email === chosen)),
  );
}

let shown = null;

async function subscribe() {
  const email = filter.value;
  const previous = shown;
  const wanted = email ? ['BooksByAuthorEmail', email] : ['AllBooks'];
  const next = client.subscribe(...wanted);
  shown = next;
  byId('subscription').textContent = `subscribe(${wanted.map((part) => JSON.stringify(part)).join(', ')})`;
  loading += 1;
  try {
    await next.ready; // only now does the old one go, so that what both show stays where it is
  } catch (error) {
    toast(error.message);
  }
  previous?.stop();
  loading -= 1;
}

function chooseAuthor(email) {
  filter.value = filter.value === email ? '' : email;
  subscribe();
}

filter.addEventListener('change', subscribe);

// -- methods -----------------------------------------------------------------------------------------------------

async function call(name, ...params) {
  try {
    return await client.call(name, ...params);
  } catch (error) {
    toast(error.reason ?? error.message);
  }
}

for (const button of document.querySelectorAll('button[data-method]')) {
  button.addEventListener('click', async () => {
    button.disabled = true;
    await call(button.dataset.method, ...JSON.parse(button.dataset.params));
    button.disabled = false;
  });
}

let toastTimer = null;

function toast(text) {
  const place = byId('toast');
  place.textContent = text;
  place.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (place.hidden = true), 5000);
}

// -- start -------------------------------------------------------------------------------------------------------

showStatus(client, { label: byId('status'), button: byId('toggle-connection'), main: byId('main') });
new DDPLog(client, byId('log'), byId('message-count'));
showCommands({ list: byId('commands'), tabs: byId('kinds'), version: byId('version'), toast });

client.connect();
loading += 1;
const everyTag = client.subscribe('AllTags').ready.catch(({ message }) => toast(message));
await Promise.all([everyTag, subscribe()]);
loading -= 1;
byId('main').setAttribute('aria-busy', 'false');
