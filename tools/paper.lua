-- Anchors of a book on paper, where all pages are one: each stands once, and on something.
local seen = {}

local function unnamed(head)
  head.identifier = ''
  return head
end

return {
  { Div = function(div)  -- the heading of a part, which nothing leads to
      if not div.classes:includes('quarto-book-part') then return nil end
      return div:walk { Header = unnamed }
    end },
  { Header = function(head) seen[head.identifier] = true end },
  { Span = function(span)
      local name = span.identifier
      if name == '' or #span.content > 0 then return nil end
      if seen[name] then return {} end
      seen[name] = true
      return { pandoc.RawInline('typst', '#metadata(none)'), span }
    end },
}
