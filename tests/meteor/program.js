// What a Meteor client does that matters here: it reads its configuration, speaks DDP, and watches its version.
(function () {
  var config = __meteor_runtime_config__;
  if (config.meteorEnv.NODE_ENV !== 'production') throw new Error('not built for production');
  var arch = config.isModern === false ? 'web.browser.legacy' : 'web.browser';
  var old = 'autoupdateVersion' in config;
  var mine = old
    ? {reload: config.autoupdateVersion, styles: config.autoupdateVersionRefreshable}
    : {reload: config.autoupdate.versions[arch].versionNonRefreshable,
       styles: config.autoupdate.versions[arch].versionRefreshable};
  var documents = {};
  window.app = {arch: arch, documents: documents, mine: mine, loaded: Math.random(), state: 'loading'};

  function show(state) {
    window.app.state = state;
    if (document.getElementById('state')) document.getElementById('state').textContent = state;
  }

  function swap(urls) {
    var before = document.querySelectorAll('link.__meteor-css__');
    urls.forEach(function (url) {
      var link = document.createElement('link');
      link.rel = 'stylesheet';
      link.className = '__meteor-css__';
      link.href = url;
      link.onload = function () { before.forEach(function (gone) { gone.remove(); }); };
      document.head.appendChild(link);
    });
  }

  function check() {
    var all = documents.meteor_autoupdate_clientVersions || {};
    var told = old ? {reload: (all.version || {}).version, styles: (all['version-refreshable'] || {}).version}
      : {reload: (all[arch] || {}).versionNonRefreshable, styles: (all[arch] || {}).versionRefreshable};
    if (told.reload === undefined || told.styles === undefined) return;
    if (told.reload !== mine.reload) {
      location.reload();
    } else if (told.styles !== mine.styles) {
      mine.styles = told.styles;
      var assets = old ? all['version-refreshable'].assets.allCss : all[arch].assets;
      swap(assets.map(function (asset) { return (old ? config.ROOT_URL_PATH_PREFIX : '') + asset.url; }));
    }
  }

  var url = new URL('websocket', config.DDP_DEFAULT_CONNECTION_URL || config.ROOT_URL);
  url.protocol = url.protocol.replace('http', 'ws');
  var socket = new WebSocket(url);
  function send(message) { socket.send(JSON.stringify(message)); }
  socket.onopen = function () { send({msg: 'connect', version: '1', support: ['1']}); };
  socket.onmessage = function (event) {
    var message = JSON.parse(event.data);
    if (message.msg === 'connected') {
      send({msg: 'sub', id: 'versions', name: 'meteor_autoupdate_clientVersions', params: []});
      send({msg: 'sub', id: 'books', name: 'AllBooks', params: []});
    } else if (message.msg === 'ping') {
      send({msg: 'pong'});
    } else if (message.msg === 'ready') {
      if (message.subs.indexOf('books') >= 0) show('ready');
      check();
    } else if (message.msg === 'added' || message.msg === 'changed') {
      var collection = documents[message.collection] = documents[message.collection] || {};
      collection[message.id] = Object.assign(collection[message.id] || {}, message.fields);
      if (window.app.state === 'ready') check();
    } else if (message.msg === 'nosub') {
      show(JSON.stringify(message));
    }
  };
  socket.onclose = function () { show('closed'); };
}());
