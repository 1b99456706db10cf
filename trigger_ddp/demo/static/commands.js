// The shell commands of this run, by kind of program; a click copies one.

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyBySelection(text);
  }
}

/** The old way: the only one without https on another host than localhost, where there is no navigator.clipboard. */
function copyBySelection(text) {
  const area = document.createElement('textarea');
  area.value = text;
  area.className = 'hidden';
  document.body.append(area);
  area.select();
  const copied = document.execCommand('copy');
  area.remove();
  if (!copied) throw new Error('The browser did not allow it; select the text instead');
}

function commandItem({ title, program, argument }, toast) {
  const item = document.createElement('li');
  const button = document.createElement('button');
  button.type = 'button';
  button.title = `${program} ${argument}`;
  const parts = { title, program: `${program} `, argument, copied: 'copy' };
  for (const [className, text] of Object.entries(parts)) {
    const part = document.createElement(className === 'program' || className === 'argument' ? 'code' : 'span');
    part.className = className;
    part.textContent = text;
    button.append(part);
  }
  const label = button.querySelector('.copied');
  button.addEventListener('click', async () => {
    try {
      await copy(`${program} ${argument}`);
    } catch (error) {
      toast(error.message);
      return;
    }
    label.textContent = 'copied';
    item.classList.add('done');
    setTimeout(() => {
      label.textContent = 'copy';
      item.classList.remove('done');
    }, 1500);
  });
  item.append(button);
  return item;
}

export async function showCommands({ list, tabs, version, toast }) {
  const { commands, postgres } = await (await fetch('demo.json')).json();
  version.textContent = ` ${postgres}`;
  const kinds = [...new Set(commands.map(({ kind }) => kind))];

  function choose(kind) {
    for (const tab of tabs.children) tab.setAttribute('aria-selected', String(tab.textContent === kind));
    const chosen = commands.filter((command) => command.kind === kind);
    list.replaceChildren(...chosen.map((command) => commandItem(command, toast)));
  }

  for (const kind of kinds) {
    const tab = document.createElement('button');
    tab.type = 'button';
    tab.role = 'tab';
    tab.textContent = kind;
    tab.addEventListener('click', () => choose(kind));
    tabs.append(tab);
  }
  choose(kinds[0]);
}
