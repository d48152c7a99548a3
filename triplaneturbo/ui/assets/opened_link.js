(token) => [token, new URLSearchParams(location.search).get(__PARAMETER__)]
