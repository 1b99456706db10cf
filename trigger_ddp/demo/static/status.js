// The connection's state as people read it, and the button that cuts or mends the connection.

const secondsUntil = (time) => Math.max(0, Math.ceil((time - Date.now()) / 1000));

function describe({ state, retryAt }) {
  if (state === 'connected') return 'Connected';
  if (state === 'connecting') return 'Connecting…';
  if (state === 'offline') return 'Offline';
  const where = navigator.onLine ? 'Reconnecting' : 'No network, trying again';
  return `${where} in ${secondsUntil(retryAt)} s`;
}

export function showStatus(client, { label, button, main }) {
  let countdown = null;

  function show() {
    const { state, reason } = client.status;
    clearInterval(countdown);
    if (state === 'waiting') countdown = setInterval(() => (label.textContent = describe(client.status)), 250);
    label.dataset.state = state;
    label.textContent = describe(client.status);
    label.title = reason ?? '';
    button.textContent = state === 'connected' ? 'Disconnect' : state === 'offline' ? 'Connect' : 'Connect now';
    button.disabled = state === 'connecting';
    main.classList.toggle('stale', state !== 'connected');
  }

  client.addEventListener('status', show);
  button.addEventListener('click', () => (client.status.state === 'connected' ? client.disconnect() : client.connect()));
  show();
}
