// A browser does not let a page of file:// read another one, so the search cannot show what stands around its finds there.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
